"""What one sees while a model trains: a bar in a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import RenderableType
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table
from rich.text import Text

from chela.records.format import duration, human
from chela.records.state import seconds_left
from chela.training.history import History
from chela.training.module import TrainingModule
from tasks.screen import Screen

LINE_EVERY_SECONDS = 20.0  # where there is no terminal: often enough to see that it lives
GAP = "  "  # between two parts of the line
BAR = range(10, 41)  # characters of a bar, where the line leaves room for one


class _Line(ProgressColumn):
    """The parts of the line that the terminal has room for, then a bar if there is room left."""

    def __init__(self, console: Screen) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> Table:
        """In one line."""
        width = self._console.width
        line = fitting(task.fields["parts"], width)
        row: list[RenderableType] = [Text(line, no_wrap=True, overflow="crop")]
        room = min(BAR[-1], width - len(line) - 1)
        if room in BAR:
            row.append(Bar(task.total, task.completed, width=room))
        table = Table.grid(padding=(0, 1))
        table.add_row(*row)
        return table


def fitting(parts: Sequence[str], width: int) -> str:
    """As many of ``parts``, from the first on, as ``width`` characters hold; one at least."""
    line = parts[0]
    for part in parts[1:]:
        if len(line) + len(GAP) + len(part) > width:
            break
        line += GAP + part
    return line


class TrainingProgress(ProgressBar):
    """Step of total, time left, metrics, speed, by importance; from ``History``'s rows."""

    def __init__(self, console: Screen, history: History) -> None:
        super().__init__()
        self.console = console
        self.history = history
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._last_line = self._began = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Draw the bar, at the step where the run is; say what comes before that step."""
        self._last_line = self._began = time.monotonic()
        self._first_step = trainer.global_step
        records = None
        if isinstance(module, TrainingModule) and module.graph:
            widths = len(module.loader.first_of_widths)
            records = f"records {widths} widths of batches" if widths > 1 else None
        if not self.console.is_terminal:
            if records:
                self._line(trainer, records)
            return
        self._bar = Progress(_Line(self.console), console=self.console)
        self._task = self._bar.add_task(
            "train",
            total=trainer.max_steps,
            completed=trainer.global_step,
            parts=self._parts(trainer, records),
        )
        self._bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Move the bar; without a terminal, print a line when it is time."""
        if self._bar is not None:
            self._draw(self._bar, trainer)
        elif time.monotonic() - self._last_line > LINE_EVERY_SECONDS:
            self._line(trainer)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Say why the bar stands still."""
        if self._bar is not None:
            self._draw(self._bar, trainer, "validates")

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Show what the validation came to."""
        if self._bar is not None:
            self._draw(self._bar, trainer)
        else:
            self._line(trainer)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Leave the finished bar on the screen."""
        self._stop()

    def on_exception(self, *_: Any) -> None:
        """Leave the bar as it is, and the terminal usable."""
        self._stop()

    def disable(self) -> None:
        """Lightning's way to keep the other processes of a distributed run silent."""
        self.console = Screen(quiet=True)

    def _line(self, trainer: L.Trainer, doing: str | None = None) -> None:
        self._last_line = time.monotonic()
        self.console.say(GAP.join(self._parts(trainer, doing)))

    def _draw(self, bar: Progress, trainer: L.Trainer, doing: str | None = None) -> None:
        parts = self._parts(trainer, doing)
        bar.update(self._task, completed=trainer.global_step, parts=parts)

    def _parts(self, trainer: L.Trainer, doing: str | None = None) -> list[str]:
        """What is known, the most important first."""
        latest, step = self.history.latest, trainer.global_step
        metric = self.history.objective.primary.name
        loss, trained, validated = "train/loss", f"train/{metric}", f"val/{metric}"
        parts = [f"step {step}/{trainer.max_steps}"]
        seconds = time.monotonic() - self._began
        done, left = step - self._first_step, trainer.max_steps - step
        if time_left := seconds_left(done, seconds, left):
            parts.append(f"{duration(time_left)} left")
        if doing:
            parts.append(doing)
        if loss in latest:
            parts.append(f"loss {latest[loss]:.3f}")
        if validated in latest:
            parts.append(f"val {metric} {latest[validated]:.3f}")
        if trained in latest and trained != loss:
            parts.append(f"train {metric} {latest[trained]:.3f}")
        if "tokens_per_second" in latest:
            parts.append(f"{human(latest['tokens_per_second'])} tokens/s")
        return parts

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
