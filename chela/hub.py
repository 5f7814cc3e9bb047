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

from chela.config.component import Component
from chela.config.schema import RunConfig, of_values
from chela.config.today import of_today, registered
from chela.disk import given_folder
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

    def __repr__(self) -> str:
        """A line: a record and a model take pages."""
        return f"<run {self.record['run_id']}: {self.config.model.name} on {self.task.name}>"

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model as others read it: config.json, model.safetensors and a model card.

        ``from_pretrained`` reads it, and ``huggingface_hub.upload_folder`` brings it to the hub.

        Args:
            folder: made if it is not there.

        Returns:
            The folder.

        Raises:
            ConfigError: the folder has an empty path.
            RunError: the model is folded: its parameters are not there any more.
            DataError: its tokens are words or pieces, and the data that know them are not there.
        """
        folder = given_folder(folder, "folder=")
        if any(isinstance(each, FoldedLongConv) for each in self.model.modules()):
            raise RunError("the model is folded.\n  try: load the run anew, and save it before")
        lexicon = self.task.lexicon()
        write_model(folder, self.record, self.task.spec, self.model, lexicon)
        return folder


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
    run = _Recorded(folder, finished_record(folder), data_dir, classes)
    file = folder / "checkpoints" / BEST
    return run.loaded(file, lambda form: selected_weights(folder, run.record, form), device)


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
    run = _Recorded(folder, record, data_dir, classes)
    file, lexicon = folder / WEIGHTS, read_lexicon(folder)
    return run.loaded(file, lambda form: read_weights(folder, digest, form), device, lexicon)


def load(folder: str | Path, device: torch.device) -> LoadedRun:
    """What a command is given by its key ``run``: a run, or what ``save_pretrained`` wrote.

    Raises:
        RunError: see there.
    """
    saved = (Path(folder) / CONFIG).exists() and not (Path(folder) / FILE).exists()
    return from_pretrained(folder, device) if saved else load_run(folder, device)


def built(record: dict[str, Any], name: str, device: torch.device) -> Model:
    """The model that a record speaks of, with the weights it starts with.

    Args:
        record: of a run.
        name: what is said of it in an error.
        device: where it will compute; meta: nowhere, only its sizes are known.

    Raises:
        RunError: it cannot be built.
    """
    run = _Recorded(Path(name), record)
    _, spec = run.task()
    with torch.device(device):
        return run.model(spec, "torch", device)


def kernels_of(record: dict[str, Any]) -> Asked:
    """The kernels of a record's model: Triton's where it can, unless the run did without."""
    return "torch" if text(record, "config.kernels") == "torch" else "auto"


def pretrained_task(place: str | Path, revision: str | None = None) -> tuple[Task, TaskSpec]:
    """The task of what ``from_pretrained`` reads, its data not yet open; see there."""
    folder = find(place, revision)
    record, _ = read_config(folder)
    return _Recorded(folder, record).task(read_lexicon(folder))


class _Recorded:
    """What a record speaks of, as today's code has it.

    Args:
        place: of the run, as an error names it.
        record: of the run.
        data_dir: see ``from_pretrained``.
        classes: see there.

    Raises:
        RunError: its configuration is not one of this code.
    """

    def __init__(
        self,
        place: Path,
        record: dict[str, Any],
        data_dir: str | Path | None = None,
        classes: Iterable[type] = (),
    ) -> None:
        self.place, self.record = place, record
        commit = text(record, "git.commit") or "unknown"
        self.remedy = f"\n  try: the code that ran it, commit {commit}"
        try:
            config = of_values(of_today(record["config"]), registered(classes))
        except ConfigError as error:
            raise RunError(
                f"the configuration of {place} is not one of this code: {error}{self.remedy}; a "
                "class of your own as load_run(..., classes=[...])"
            ) from error
        task = config.task
        if hasattr(task.config, "workers"):  # processes would import the script that calls load_run
            task = Component(task.target, dataclasses.replace(task.config, workers=1))
        data_dir = config.data_dir if data_dir is None else str(data_dir)
        self.config = dataclasses.replace(config, task=task, data_dir=data_dir)

    def task(self, lexicon: str | None = None) -> tuple[Task, TaskSpec]:
        """Its task, the data not yet open, and what a model has to know of it."""
        task = build.build_task(self.config)
        task.expect(self.record["data"], lexicon)
        try:
            return task, task.spec
        except KeyError as error:
            raise RunError(
                f"the record in {self.place} says no {error} of its data{self.remedy}"
            ) from error

    def model(self, spec: TaskSpec, kernels: Asked, device: torch.device) -> Model:
        """Its model, with the weights it starts with."""
        try:
            return build.build_model(self.config.model, spec, kernels, device)
        except (ConfigError, RuntimeError) as error:  # RuntimeError: no memory is large enough
            raise RunError(
                f"the model of {self.place} cannot be built: {error}{self.remedy}"
            ) from error

    def loaded(
        self,
        file: Path,
        read: Callable[[Model], dict[str, Tensor]],
        device: str | torch.device,
        lexicon: str | None = None,
    ) -> LoadedRun:
        """All of it with the weights that ``read`` finds in ``file`` for its model."""
        config, device = self.config, torch.device(device)
        if note := code_note(config, self.record):
            warnings.warn(visible(f"{self.place}: {note}"), stacklevel=3)
        task, spec = self.task(lexicon)
        depth = config.model.backbone.depth
        # a record may ask for blocks without end, which take their time even without memory
        if file.exists() and depth * BLOCK > file.stat().st_size:
            raise RunError(
                f"{file} is too small for the {depth:,} blocks that its record speaks of"
            )
        with torch.device("meta"):  # the weights' sizes alone, which no file is believed
            form = self.model(spec, "torch", torch.device("meta"))
        weights = read(form)
        if wrong := differences(form, weights):
            raise RunError(
                f"the weights in {self.place} are for another model:\n{wrong}{self.remedy}"
            )
        model = self.model(spec, kernels_of(self.record), device)
        model.load_state_dict(weights)
        return LoadedRun(model.to(device).eval(), task, self.record, config)
