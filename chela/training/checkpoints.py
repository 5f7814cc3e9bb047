"""Checkpoints that are whole or absent, best and last, and stopping without losing a step."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from chela.records.files import atomic_file
from chela.signals import SAME_REQUEST, StoppingSignals
from chela.training.module import ClassificationModule

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"

AT_STEP = "saving at the end of this step"
AT_VALIDATION = "saving after the validation that ends this step"
GRACE = 10.0  # seconds for that; a batch system kills what goes on for 30
OR_BEFORE = f"{AT_VALIDATION}; if it takes over {GRACE:.0f} s, stopping as of the step before"
AT_TEST = "stopping before the test is over; what was trained is saved"
AFTER_TEST = "stopping when the test is over and recorded"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints are whole or absent: a kill while one is written leaves the one before."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save at ``path``; an older file there stays whole until the last moment."""
        with atomic_file(Path(path)) as file:
            torch.save(checkpoint, file)


class Interrupted(BaseException):
    """The run was asked to stop and has saved itself. Not an ``Exception``: a sweep stops too.

    Args:
        signal_number: what asked it.
        where: ``at step 7``, ``during the test``, ``at once``.
        saved: whether all that was computed is saved; else it is as of the last checkpoint.
    """

    def __init__(self, signal_number: int, where: str, saved: bool = True) -> None:
        super().__init__(f"{signal.Signals(signal_number).name} {where}")
        self.signal_number, self.saved = signal_number, saved


class StopSignals(StoppingSignals):
    """Turns Ctrl-C, SIGTERM and SIGUSR1 into a request that is served where the run can go on.

    A signal may come in the middle of an update of the weights, where nothing can be saved that
    could be resumed exactly. The first one is therefore only noted; a second one ends the run at
    once, with the checkpoint before as the last, and a third one the process. What comes within
    ``SAME_REQUEST`` is the same one: a sweep passes on what it gets, too.

    Attributes:
        received: the first one, or None.
        then: what follows a signal that comes now, for who sent it.

    Raises:
        Interrupted: by the second one, wherever the main thread is.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        super().__init__(self._serve)
        self.received: int | None = None
        self.then = AT_STEP
        self._at = 0.0  # of the latest request, time.monotonic()
        self._at_once = False
        self._held = False
        self._waiting: int | None = None  # a second one that came while they were held
        self._notify = notify

    @property
    def seconds(self) -> float:
        """Since the first one came; 0 if none has."""
        return 0.0 if self.received is None else time.monotonic() - self._at

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let a second signal wait until a record is written, which takes a moment.

        Raises:
            Interrupted: at the end, one came.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._waiting is not None:
            number, self._waiting = self._waiting, None
            raise self._end(number)

    def _serve(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._at = number, time.monotonic()
            name = signal.Signals(number).name
            self._notify(f"{name}: {self.then}; send it again to stop at once")
        elif time.monotonic() - self._at <= SAME_REQUEST:
            return
        elif self._at_once:  # something keeps the process from its end
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif self._held:
            self._waiting, self._at = number, time.monotonic()
        else:
            raise self._end(number)

    def _end(self, number: int) -> Interrupted:
        self._at_once, self._at = True, time.monotonic()
        return Interrupted(number, "at once", saved=False)


class Checkpointer(Checkpoint):
    """Keeps ``best.ckpt`` (weights at the best validation accuracy) and ``last.ckpt`` (everything).

    ``previous.ckpt`` is the last one before, for a disk that loses what it said it had written.

    Saves at step boundaries only, and after the validation that belongs to a step, so that a run
    resumed from ``last.ckpt`` goes on exactly as if it had never stopped. Among equal accuracies
    the first counts.

    A validation may take minutes, and a batch system does not wait for its end. So the step before
    one that may be long is saved too, and a request to stop breaks that validation off: what is
    lost is one step, which the resumed run computes again.
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
        self._saved_step = 0  # that a resume would go on from
        self._validation_began = 0.0  # time.monotonic()
        self._validation_seconds = math.inf  # that the last one took

    def state_dict(self) -> dict[str, Any]:
        """What the selection needs to go on after a resume."""
        return {"best_accuracy": self.best_accuracy, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the selection where the checkpoint left it."""
        self.best_accuracy, self.best_step = state["best_accuracy"], state["best_step"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Lightning has put its own handler of SIGTERM before ours: put ours back."""
        self.signals.install()
        self._saved_step = trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, index: int
    ) -> None:
        """Know whether the step ends in a validation, which may take minutes."""
        if not self._validates(trainer, trainer.global_step + 1):
            self.signals.then = AT_STEP
        else:
            self.signals.then = OR_BEFORE if trainer.world_size == 1 else AT_VALIDATION

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
        due = step % self.every_steps == 0 or (
            self._validation_seconds > GRACE and self._validates(trainer, step + 1)
        )
        if self._asked_to_stop(trainer) or due:
            self._save_last(trainer)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the clock."""
        self._validation_began = time.monotonic()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Break off what takes too long, unless others wait for it or more than a step is lost.

        Raises:
            Interrupted: a signal came ``GRACE`` seconds ago.
        """
        step = trainer.global_step
        one_step_lost = trainer.world_size == 1 and self._saved_step == step - 1
        if one_step_lost and self.signals.seconds > GRACE:
            raise self._interrupted(f"in the validation of step {step}", saved=False)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Keep the weights if they are the best so far, then everything."""
        self._validation_seconds = time.monotonic() - self._validation_began
        accuracy = float(trainer.callback_metrics["val/accuracy"])
        if accuracy > self.best_accuracy:
            self.best_accuracy, self.best_step = accuracy, trainer.global_step
            trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        self._save_last(trainer)

    def on_test_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Take SIGTERM back from Lightning once more; stop, if asked to since the last step.

        Raises:
            Interrupted: any process was.
        """
        self.signals.install()
        self.signals.then = AT_TEST if trainer.world_size == 1 else AFTER_TEST
        if self._asked_to_stop(trainer):
            raise self._interrupted("before the test")

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop between two batches, unless others wait for this process's share of the test.

        Raises:
            Interrupted: a signal came.
        """
        if trainer.world_size == 1 and self._asked_to_stop(trainer):
            raise self._interrupted("during the test")

    def on_test_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """What is left takes no time."""
        self.signals.then = AFTER_TEST

    def on_exception(
        self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException
    ) -> None:
        """Stopped at once: so are processes that this one has started, which may wait for it."""
        launcher = trainer.strategy.launcher
        if isinstance(exception, Interrupted) and not exception.saved and launcher is not None:
            launcher.kill(signal.SIGKILL)

    def _save_last(self, trainer: L.Trainer) -> None:
        if isinstance(trainer.lightning_module, ClassificationModule):
            trainer.lightning_module.check()  # what is saved is good to go on from
        if trainer.is_global_zero and (self.folder / LAST).exists():
            (self.folder / LAST).replace(self.folder / PREVIOUS)
        trainer.save_checkpoint(self.folder / LAST)
        self._saved_step = trainer.global_step
        if self._asked_to_stop(trainer):
            last = trainer.global_step >= trainer.max_steps
            where = f"at step {trainer.global_step}"
            raise self._interrupted(f"{where}, before the test" if last else where)

    def _validates(self, trainer: L.Trainer, step: int) -> bool:
        return step >= trainer.max_steps or step % self.validate_every == 0

    def _interrupted(self, where: str, saved: bool = True) -> Interrupted:
        # without a number it was another process's
        return Interrupted(self.signals.received or signal.SIGTERM, where, saved)

    def _asked_to_stop(self, trainer: L.Trainer) -> bool:
        """Whether any process was: a signal may reach only one of a distributed run."""
        asked = self.signals.received is not None
        if trainer.world_size == 1:
            return asked
        return trainer.strategy.reduce_boolean_decision(asked, all=False)
