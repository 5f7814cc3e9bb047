"""A finished run as objects again: its model with the tested weights, its task, its record."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from chela.config.schema import Component, RunConfig, of_values
from chela.config.today import of_today, registered
from chela.errors import ConfigError, RunError
from chela.kernels.choice import Asked
from chela.mixers.chela.long_conv import FoldedLongConv
from chela.model import Model
from chela.pretrained import (
    CONFIG,
    WEIGHTS,
    find,
    read_config,
    read_lexicon,
    read_weights,
    write_model,
)
from chela.records.record import FILE, text
from chela.training import build
from chela.training.checkpoints import BEST
from chela.training.evidence import code_note
from chela.training.selected import differences, finished_record, selected_weights
from tasks.base import Task, TaskSpec
from tasks.screen import visible

BLOCK = 100  # bytes that a block's weights take in a file at least, their names alone


@dataclass(frozen=True)
class LoadedRun:
    """What ``load_run`` returns."""

    model: Model  # in eval mode: (values, lengths) -> logits (B, classes) or (B, L, classes)
    task: Task  # opens its data when asked; batches come on the CPU
    record: dict[str, Any]
    config: RunConfig

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model as others read it: config.json, model.safetensors and a model card.

        ``from_pretrained`` reads it, and ``huggingface_hub.upload_folder`` brings it to the hub.

        Args:
            folder: made if it is not there.

        Returns:
            The folder.

        Raises:
            RunError: the model is folded: its parameters are not there any more.
            DataError: its tokens are words or pieces, and the data that know them are not there.
        """
        if any(isinstance(each, FoldedLongConv) for each in self.model.modules()):
            raise RunError("the model is folded.\n  try: load the run anew, and save it before")
        lexicon = self.task.lexicon()
        write_model(Path(folder), self.record, self.task.spec, self.model, lexicon)
        return Path(folder)


def device_for(asked: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that the key ``device`` of a command names; auto: a GPU where there is one.

    Raises:
        RunError: cuda, and torch finds no GPU.
    """
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise RunError("device=cuda, but torch finds no GPU.\n  try: device=auto")
    return torch.device("cuda" if there and asked != "cpu" else "cpu")


def load_run(
    folder: str | Path,
    device: str | torch.device = "cpu",
    data_dir: str | Path | None = None,
    classes: Iterable[type] = (),
) -> LoadedRun:
    """The finished run in ``folder``, with the weights that it selected and tested.

    Nothing of its record and weights is executed, resolved or imported: they may be anyone's.
    The model computes in float32, by Triton kernels where ``device`` has them and the run did not
    do without. It needs no data: those are opened when the task is first asked for them, and
    prepared then if they are not there, in this process alone.

    Args:
        folder: ``<output_dir>/<name>-<hash>/seed<seed>``.
        device: where the model will be.
        data_dir: where the data are; None: where the run had them.
        classes: tasks and mixers of one's own that the run may be of, beside those of the project.

    Raises:
        RunError: the folder holds no finished run, or no weights that fit its record; the code is
            another now.
    """
    folder = Path(folder)
    record = finished_record(folder)

    def read(form: Model) -> dict[str, Tensor]:
        return selected_weights(folder, record, form).weights

    file = folder / "checkpoints" / BEST
    return _loaded(folder, file, record, read, torch.device(device), data_dir, classes)


def from_pretrained(
    place: str | Path,
    device: str | torch.device = "cpu",
    data_dir: str | Path | None = None,
    classes: Iterable[type] = (),
    revision: str | None = None,
) -> LoadedRun:
    """A model that ``save_pretrained`` wrote, as ``load_run`` gives a run.

    Nothing of its files is executed, resolved or imported: they may be anyone's.

    Args:
        place: a folder, or ``owner/name`` on the Hugging Face Hub.
        device: where the model will be.
        data_dir: where the data are, for who asks the task for them; None: ``data``.
        classes: tasks and mixers of one's own that it may be of, beside those of the project.
        revision: a branch, tag or commit on the hub.

    Raises:
        RunError: there is no such folder or model, or its files do not fit together.
    """
    folder = find(place, revision)
    record, digest = read_config(folder)

    def read(form: Model) -> dict[str, Tensor]:
        return read_weights(folder, digest, form)

    file, lexicon = folder / WEIGHTS, read_lexicon(folder)
    return _loaded(folder, file, record, read, torch.device(device), data_dir, classes, lexicon)


def load(folder: str | Path, device: torch.device) -> LoadedRun:
    """What a command is given by its key ``run``: a run, or what ``save_pretrained`` wrote.

    Raises:
        RunError: see there.
    """
    saved = (Path(folder) / CONFIG).exists() and not (Path(folder) / FILE).exists()
    return from_pretrained(folder, device) if saved else load_run(folder, device)


def built(
    record: dict[str, Any], name: str, device: torch.device, classes: Iterable[type] = ()
) -> Model:
    """The model that a record speaks of, with the weights it starts with.

    Args:
        record: of a run.
        name: what is said of it in an error.
        device: where it will compute; meta: nowhere, only its sizes are known.
        classes: see ``from_pretrained``.

    Raises:
        RunError: it cannot be built.
    """
    folder = Path(name)
    config = _config(folder, record, None, classes)
    _, spec = _task(config, folder, record)
    with torch.device(device):
        return _model(config, spec, "torch", device, folder, record)


def kernels_of(record: dict[str, Any]) -> Asked:
    """The kernels of a record's model: Triton's where it can, unless the run did without."""
    return "torch" if text(record, "config.kernels") == "torch" else "auto"


def pretrained_task(place: str | Path, revision: str | None = None) -> tuple[Task, TaskSpec]:
    """The task of what ``from_pretrained`` reads, its data not yet open; see there."""
    folder = find(place, revision)
    record, _ = read_config(folder)
    config = _config(folder, record, None, ())
    return _task(config, folder, record, read_lexicon(folder))


def _loaded(
    folder: Path,
    file: Path,
    record: dict[str, Any],
    read: Callable[[Model], dict[str, Tensor]],
    device: torch.device,
    data_dir: str | Path | None,
    classes: Iterable[type],
    lexicon: str | None = None,
) -> LoadedRun:
    """The run of a record with the weights that ``read`` finds in ``file`` for its model."""
    config = _config(folder, record, data_dir, classes)
    if note := code_note(config, record):
        warnings.warn(visible(f"{folder}: {note}"), stacklevel=2)
    task, spec = _task(config, folder, record, lexicon)
    _refuse_blocks_without_weights(config, file)
    with torch.device("meta"):  # the weights' sizes alone, which no file is believed
        form = _model(config, spec, "torch", torch.device("meta"), folder, record)
    weights = read(form)
    if wrong := differences(form, weights):
        raise RunError(f"the weights in {folder} are for another model:\n{wrong}{_remedy(record)}")
    model = _model(config, spec, kernels_of(record), device, folder, record)
    model.load_state_dict(weights)
    return LoadedRun(model.to(device).eval(), task, record, config)


def _config(
    folder: Path, record: dict[str, Any], data_dir: str | Path | None, classes: Iterable[type]
) -> RunConfig:
    """The run's configuration, of today's code."""
    try:
        config = of_values(of_today(record["config"]), registered(classes))
    except ConfigError as error:
        raise RunError(
            f"the configuration of {folder} is not one of this code: {error}{_remedy(record)}; a "
            "class of your own as load_run(..., classes=[...])"
        ) from error
    task = config.task
    if hasattr(task.config, "workers"):  # processes would import the script that calls load_run
        task = Component(task.target, dataclasses.replace(task.config, workers=1))
    place = config.data_dir if data_dir is None else str(data_dir)
    return dataclasses.replace(config, task=task, data_dir=place)


def _task(
    config: RunConfig, folder: Path, record: dict[str, Any], lexicon: str | None = None
) -> tuple[Task, TaskSpec]:
    """The run's task, its data not yet open, and what the model has to know of it."""
    task = build.build_task(config)
    task.expect(record["data"], lexicon)
    try:
        return task, task.spec
    except KeyError as error:
        raise RunError(
            f"the record in {folder} says no {error} of its data{_remedy(record)}"
        ) from error


def _refuse_blocks_without_weights(config: RunConfig, file: Path) -> None:
    """A record may ask for blocks without end, which take their time even without memory."""
    depth = config.model.backbone.depth
    if file.exists() and depth * BLOCK > file.stat().st_size:
        raise RunError(f"{file} is too small for the {depth:,} blocks that its record speaks of")


def _model(
    config: RunConfig,
    spec: TaskSpec,
    kernels: Asked,
    device: torch.device,
    folder: Path,
    record: dict[str, Any],
) -> Model:
    try:
        return build.build_model(config.model, spec, kernels, device)
    except (ConfigError, RuntimeError) as error:  # RuntimeError: no memory is large enough
        raise RunError(
            f"the model of {folder} cannot be built: {error}{_remedy(record)}"
        ) from error


def _remedy(record: dict[str, Any]) -> str:
    """Where the run's code is, if it ran in a checkout."""
    return f"\n  try: the code that ran it, commit {text(record, 'git.commit') or 'unknown'}"
