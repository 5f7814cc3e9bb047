"""What one sees while a model trains: a bar in a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from chela.records.format import duration, human
from chela.records.state import seconds_left
from chela.training.history import History

LINE_EVERY_SECONDS = 20.0  # where there is no terminal: often enough to see that it lives


class TrainingProgress(ProgressBar):
    """Steps done, loss, accuracy, tokens per second and time left, from the rows of ``History``."""

    def __init__(self, console: Console, history: History) -> None:
        super().__init__()
        self.console = console
        self.history = history
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._last_line = self._began = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Draw the bar, at the step where the run is."""
        self._last_line = self._began = time.monotonic()
        self._first_step = trainer.global_step
        if not self.console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._task = self._bar.add_task(
            "train", total=trainer.max_steps, completed=trainer.global_step, metrics=""
        )
        self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Move the bar; without a terminal, print a line when it is time."""
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, metrics=self._metrics())
        elif time.monotonic() - self._last_line > LINE_EVERY_SECONDS:
            self._line(trainer)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Say why the bar stands still."""
        if self._bar is not None:
            self._bar.update(self._task, description="validate")

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Show the new validation accuracy."""
        if self._bar is not None:
            self._bar.update(self._task, description="train", metrics=self._metrics())
        else:
            self._line(trainer)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Leave the finished bar on the screen."""
        self._stop()

    def on_exception(
        self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException
    ) -> None:
        """Leave the bar as it is, and the terminal usable."""
        self._stop()

    def disable(self) -> None:
        """Lightning's way to keep the other processes of a distributed run silent."""
        self.console = Console(quiet=True)

    def _line(self, trainer: L.Trainer) -> None:
        self._last_line = time.monotonic()
        done = trainer.global_step - self._first_step
        left = trainer.max_steps - trainer.global_step
        parts = [f"step {trainer.global_step}/{trainer.max_steps}", self._metrics()]
        if seconds := seconds_left(done, self._last_line - self._began, left):
            parts.append(f"{duration(seconds)} left")
        self.console.print("  ".join(filter(None, parts)), highlight=False)

    def _metrics(self) -> str:
        latest, parts = self.history.latest, []
        if "train/loss" in latest:
            parts.append(f"loss {latest['train/loss']:.3f} acc {latest['train/accuracy']:.3f}")
        if "val/accuracy" in latest:
            parts.append(f"val acc {latest['val/accuracy']:.3f}")
        if "tokens_per_second" in latest:
            parts.append(f"{human(latest['tokens_per_second'])} tokens/s")
        return "  ".join(parts)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
