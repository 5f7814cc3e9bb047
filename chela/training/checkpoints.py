"""Checkpoints that are whole or absent, best and last, and stopping without losing a step."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from chela.records.files import atomic_file
from chela.signals import StoppingSignals
from chela.training.module import ClassificationModule

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints are whole or absent: a kill while one is written leaves the one before."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save at ``path``; an older file there stays whole until the last moment."""
        with atomic_file(Path(path)) as file:
            torch.save(checkpoint, file)


class Interrupted(BaseException):
    """The run was asked to stop and has saved itself. Not an ``Exception``: a sweep stops too."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"{signal.Signals(signal_number).name} at step {step}")
        self.signal_number = signal_number
        self.step = step


class StopSignals(StoppingSignals):
    """Turns Ctrl-C, SIGTERM and SIGUSR1 into a request that is served between two steps.

    A signal may come in the middle of an update of the weights, where nothing can be saved that
    could be resumed exactly. The first one is therefore only noted; a second one ends the process
    at once, with the checkpoint before as the last. What comes within a second is the same request:
    a batch system signals every process of a job, and a sweep passes on what it gets.
    """

    SAME = 1.0  # seconds

    def __init__(self, notify: Callable[[str], None]) -> None:
        super().__init__(self._serve)
        self.received: int | None = None
        self._at = 0.0  # when, time.monotonic()
        self._notify = notify

    def _serve(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if time.monotonic() - self._at > self.SAME:
                self.remove()
                at_once = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, at_once)  # Lightning's own would wait for the step
                signal.raise_signal(number)
            return
        self.received, self._at = number, time.monotonic()
        name = signal.Signals(number).name
        self._notify(f"{name}: saving at the end of this step; send it again to stop at once")


class Checkpointer(Checkpoint):
    """Keeps ``best.ckpt`` (weights at the best validation accuracy) and ``last.ckpt`` (everything).

    ``previous.ckpt`` is the last one before, for a disk that loses what it said it had written.

    Saves at step boundaries only, and after the validation that belongs to a step, so that a run
    resumed from ``last.ckpt`` goes on exactly as if it had never stopped. Among equal accuracies
    the first counts.
    """

    def __init__(
        self, folder: Path, every_steps: int, validate_every: int, notify: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.every_steps = every_steps
        self.validate_every = validate_every
        self.signals = StopSignals(notify)
        self.best_accuracy = -1.0
        self.best_step = 0

    def state_dict(self) -> dict[str, Any]:
        """What the selection needs to go on after a resume."""
        return {"best_accuracy": self.best_accuracy, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the selection where the checkpoint left it."""
        self.best_accuracy, self.best_step = state["best_accuracy"], state["best_step"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Listen to signals while there are steps to stop between."""
        self.signals.install()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Save now and then; leave the steps that end in a validation to ``on_validation_end``."""
        step = trainer.global_step
        if step >= trainer.max_steps:
            trainer.should_stop = True  # Lightning then validates once more, whatever the interval
            return
        if step % self.validate_every == 0:
            return
        if self._asked_to_stop(trainer) or step % self.every_steps == 0:
            self._save_last(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Keep the weights if they are the best so far, then everything."""
        accuracy = float(trainer.callback_metrics["val/accuracy"])
        if accuracy > self.best_accuracy:
            self.best_accuracy, self.best_step = accuracy, trainer.global_step
            trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        self._save_last(trainer)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Give the signals back."""
        self.signals.remove()

    def on_exception(
        self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self.signals.remove()

    def _save_last(self, trainer: L.Trainer) -> None:
        if isinstance(trainer.lightning_module, ClassificationModule):
            trainer.lightning_module.check()  # what is saved is good to go on from
        if trainer.is_global_zero and (self.folder / LAST).exists():
            (self.folder / LAST).replace(self.folder / PREVIOUS)
        trainer.save_checkpoint(self.folder / LAST)
        if self._asked_to_stop(trainer) and trainer.global_step < trainer.max_steps:
            raise Interrupted(self.signals.received or signal.SIGTERM, trainer.global_step)

    def _asked_to_stop(self, trainer: L.Trainer) -> bool:
        """Whether any process was: a signal may reach only one of a distributed run."""
        asked = self.signals.received is not None
        if trainer.world_size == 1:
            return asked
        return trainer.strategy.reduce_boolean_decision(asked, all=False)
