"""A finished run as objects again: its model with the tested weights, its task, its record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from chela.choices import CONFIGS
from chela.config import RunConfig, parse
from chela.errors import ConfigError, RunError
from chela.kernels.choice import Asked
from chela.model import Classifier
from chela.training import build
from chela.training.selected import differences, finished_record, selected_weights
from tasks.base import Task


@dataclass(frozen=True)
class LoadedRun:
    """What ``load_run`` returns."""

    model: Classifier  # in eval mode: (values, lengths) -> logits (B, classes)
    task: Task  # its data open; batches come on the CPU
    record: dict[str, Any]
    config: RunConfig


def load_run(
    folder: str | Path, device: str | torch.device = "cpu", data_dir: str | Path | None = None
) -> LoadedRun:
    """The finished run in ``folder``, with the weights that it selected and tested.

    The model computes in float32, by Triton kernels where ``device`` has them and the run did not
    do without. Data are prepared if they are not there, since a task's symbols may lie in them.

    Args:
        folder: ``<output_dir>/<name>-<hash>/seed<seed>``.
        device: where the model will be.
        data_dir: where the data are; None: where the run had them.

    Raises:
        RunError: the folder holds no finished run, or no weights that fit its record; the code or
            the data are others now.
        DataError: the data cannot be prepared.
    """
    folder, device = Path(folder), torch.device(device)
    record = finished_record(folder)
    selected = selected_weights(folder, record)
    config = _config(folder, record, data_dir)
    task = _task(config, folder, record)
    kernels: Asked = "torch" if config.kernels == "torch" else "auto"
    model = build.build_model(config.model, task.spec, kernels, device)
    if wrong := differences(model, selected.weights):
        raise RunError(f"the weights in {folder} are for another model:\n{wrong}{_remedy(record)}")
    model.load_state_dict(selected.weights)
    return LoadedRun(model.to(device).eval(), task, record, config)


def _config(folder: Path, record: dict[str, Any], data_dir: str | Path | None) -> RunConfig:
    """The run's configuration, as a machine without its hardware can have it."""
    try:
        config = parse(_with_todays_classes(OmegaConf.create(record["config"])))
    except ConfigError as error:
        raise RunError(
            f"the configuration of {folder} is not one of this code: {error}{_remedy(record)}"
        ) from error
    trainer = dataclasses.replace(config.trainer, step="eager", data_on_device="never")
    place = config.data_dir if data_dir is None else str(data_dir)
    return dataclasses.replace(config, trainer=trainer, data_dir=place)


def _with_todays_classes(config: DictConfig) -> DictConfig:
    """Where the classes stand that the configuration's files name: they may have moved."""
    for group, key in (("task", "_target_"), ("model", "mixer._target_")):
        file = CONFIGS / group / f"{config[group].name}.yaml"
        if file.is_file():
            OmegaConf.update(config[group], key, OmegaConf.select(OmegaConf.load(file), key))
    return config


def _task(config: RunConfig, folder: Path, record: dict[str, Any]) -> Task:
    """The run's task, open, if its data are still those of the run."""
    task = build.build_task(config)
    task.prepare_data()
    task.setup()
    now, then = task.meta.fingerprint, record["data"]["fingerprint"]
    if now != then:
        raise RunError(
            f"the data of {task.name} below {config.data_dir} are not those of {folder} "
            f"({now[:12]} now, {then[:12]} then).\n"
            "  try: data_dir=<the folder that the run had them in>"
        )
    return task


def _remedy(record: dict[str, Any]) -> str:
    """Where the run's code is, if it ran in a checkout."""
    return f"\n  try: the code that ran it, commit {record['git']['commit'] or 'unknown'}"
