"""Checkpoints that are whole or absent, best and last, and where a run that is to stop does."""

from __future__ import annotations

import math
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from chela.errors import RunError
from chela.objectives.base import Metric
from chela.records.files import atomic_file
from chela.training.module import TrainingModule
from chela.training.stopping import (
    AFTER_TEST,
    AT_STEP,
    AT_TEST,
    AT_VALIDATION,
    OR_BEFORE,
    Stopping,
)
from tasks.errors import first_line

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
BEST_BEFORE = "best-before.ckpt"  # there until last.ckpt knows of the new best


class Unreadable(RunError):
    """A checkpoint that is missing or damaged."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints are whole or absent: a kill while one is written leaves the one before."""

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Everything, see ``read_checkpoint``."""
        return read_checkpoint(Path(path))

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save at ``path``; an older file there stays whole until the last moment."""
        with atomic_file(Path(path)) as file:
            torch.save(checkpoint, file)


def read_checkpoint(file: Path, largest: int | None = None) -> dict[str, Any]:
    """What a checkpoint holds: tensors on the CPU and plain values, whatever made the file.

    Args:
        file: as ``AtomicCheckpointIO`` writes it.
        largest: bytes that it may have; None: any number.

    Raises:
        Unreadable: it is missing, larger, damaged (each part has a checksum, which torch does not
            look at), unpacks to more than it is, or would run code.
    """
    try:
        size = file.stat().st_size
        if not file.is_file():
            raise ValueError("it is not a regular file")
        if largest is not None and size > largest:
            raise ValueError(f"it has {size:,} bytes, and should have at most {largest:,}")
        with zipfile.ZipFile(file) as parts:
            stored = [each.file_size for each in parts.infolist() if not each.compress_type]
            if len(stored) < len(parts.infolist()) or sum(stored) > size:
                raise ValueError("its parts are larger than the file")
            if (damaged := parts.testzip()) is not None:
                raise ValueError(f"its part {damaged} is damaged")
        # mapped: torch believes the sizes that a file names, and would read beyond its parts
        mapped = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        _refuse_repeats(mapped, size)
        content = _copied(mapped, 2 * size)
        if not isinstance(content, dict) or not isinstance(content["global_step"], int):
            raise ValueError("it has no step")
    except Exception as error:  # a truncated file fails in many ways
        raise Unreadable(
            f"{file} cannot be read as a checkpoint of a run ({first_line(error)})\n"
            "  try: resume=false (start anew; what is there is moved aside)"
        ) from error
    return content


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was saved at.

    Raises:
        Unreadable: see ``read_checkpoint``.
    """
    return int(read_checkpoint(checkpoint)["global_step"])


def _refuse_repeats(content: Any, most: int) -> None:
    """A list that holds one list twice, which holds one twice, and so on has no end in practice.

    Raises:
        ValueError: there are more values than ``most``, each counted wherever it is.
    """
    left = [content]
    for _ in range(most):
        if not left:
            return
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | tuple | set):
            left += value
    raise ValueError("it has more values than bytes")


def _copied(mapped: Any, largest: int) -> Any:
    """The same with tensors of their own, of so many bytes together at most."""
    left = largest

    def copied(tensor: Tensor) -> Tensor:
        nonlocal left
        left -= tensor.numel() * tensor.element_size()
        if left < 0:
            raise ValueError("its tensors are larger than the file")
        return tensor.detach().clone()

    return apply_to_collection(mapped, Tensor, copied)


class Checkpointer(Checkpoint):
    """Keeps ``best.ckpt`` (weights at the best validation) and ``last.ckpt`` (everything).

    ``previous.ckpt`` is the last one before, for a disk that loses what it said it had written.

    Saves at step boundaries only, and after the validation that belongs to a step, so that a run
    resumed from ``last.ckpt`` goes on exactly as if it had never stopped. Among equals
    the first counts.

    A validation may take minutes, and a batch system does not wait for its end. So the step before
    one that may be long is saved too, and a request to stop breaks that validation off: what is
    lost is one step, which the resumed run computes again.
    """

    def __init__(self, folder: Path, every_steps: int, stopping: Stopping, metric: Metric) -> None:
        self.folder, self.every_steps = folder, every_steps
        self.stopping, self.metric = stopping, metric
        self.best: float | None = None
        self.best_step = 0
        self._saved_step = 0  # that a resume would go on from
        self._validation_began = 0.0  # time.monotonic()
        self._validation_seconds = math.inf  # that the last one took

    def state_dict(self) -> dict[str, Any]:
        """What the selection needs to go on after a resume."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the selection where the checkpoint left it."""
        self.best, self.best_step = state["best"], state["best_step"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Lightning has put its own handler of SIGTERM before ours: put ours back.

        What is recorded now may take minutes, and leaves nothing to save.
        """
        self.stopping.install()
        if isinstance(module, TrainingModule):
            stop = partial(self.stopping.serve, trainer, "before the first step", saved=False)
            module.between_recordings = stop
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            self._restore_best()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Know whether the step ends in a validation, which may take minutes."""
        step = trainer.global_step + 1
        if not self._validates(trainer, step):
            self.stopping.then = AT_STEP
        else:
            self.stopping.then = OR_BEFORE if self._loses_one(trainer, step) else AT_VALIDATION

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Save now and then; leave the steps that end in a validation to ``on_validation_end``."""
        step = trainer.global_step
        if step >= trainer.max_steps:
            trainer.should_stop = True  # Lightning then validates once more, whatever the interval
            return
        if step % trainer.val_check_interval == 0:
            return
        # several devices wait for each other: each has a clock of its own, and none breaks off
        long = trainer.world_size == 1 and self._validation_seconds > self.stopping.grace
        before = long and self._validates(trainer, step + 1)
        if self.stopping.asked(trainer) or before or step % self.every_steps == 0:
            self._save_last(trainer)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the clock."""
        self._validation_began = time.monotonic()

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Break off what takes too long, if no more than a step is lost.

        Raises:
            Interrupted: a signal came ``Stopping.grace`` seconds ago.
        """
        step = trainer.global_step
        if self._loses_one(trainer, step) and self.stopping.overdue:
            self.stopping.serve(trainer, f"in the validation of step {step}", saved=False)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Keep the weights if they are the best so far, then everything."""
        self._validation_seconds = time.monotonic() - self._validation_began
        value = float(trainer.callback_metrics[f"val/{self.metric.name}"])
        if self.metric.better(value, self.best):
            self.best, self.best_step = value, trainer.global_step
            if trainer.is_global_zero and (self.folder / BEST).exists():
                (self.folder / BEST).replace(self.folder / BEST_BEFORE)
            trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        self._save_last(trainer)

    def on_test_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Take SIGTERM back from Lightning once more; stop, if asked to since the last step.

        Raises:
            Interrupted: any process was.
        """
        self.stopping.install()
        self.stopping.then = AT_TEST if trainer.world_size == 1 else AFTER_TEST
        self.stopping.serve(trainer, "before the test")

    def on_test_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Stop between two batches, unless others wait for this process's share of the test.

        Raises:
            Interrupted: a signal came.
        """
        if trainer.world_size == 1:
            self.stopping.serve(trainer, "during the test")

    def on_test_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """What is left takes no time."""
        self.stopping.then = AFTER_TEST

    def _save_last(self, trainer: L.Trainer) -> None:
        if isinstance(trainer.lightning_module, TrainingModule):
            trainer.lightning_module.check()  # what is saved is good to go on from
        if trainer.is_global_zero and (self.folder / LAST).exists():
            (self.folder / LAST).replace(self.folder / PREVIOUS)
        trainer.save_checkpoint(self.folder / LAST)
        if trainer.is_global_zero:
            (self.folder / BEST_BEFORE).unlink(missing_ok=True)
        self._saved_step = trainer.global_step
        last = trainer.global_step >= trainer.max_steps
        where = f"at step {trainer.global_step}"
        self.stopping.serve(trainer, f"{where}, before the test" if last else where)

    def _restore_best(self) -> None:
        """Undo a new best of which the checkpoint that the run goes on from does not know.

        The validation is computed once more then, and on a GPU its result may be another.
        """
        before = self.folder / BEST_BEFORE
        if before.exists():
            if step_of(before) == self.best_step:
                before.replace(self.folder / BEST)
            else:
                before.unlink()

    def _loses_one(self, trainer: L.Trainer, step: int) -> bool:
        """Whether breaking off the validation of ``step`` loses that step alone, and is safe."""
        return trainer.world_size == 1 and self._saved_step == step - 1

    def _validates(self, trainer: L.Trainer, step: int) -> bool:
        return step >= trainer.max_steps or step % trainer.val_check_interval == 0
