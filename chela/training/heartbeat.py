"""Signs of life: where a run is, in a small file that others read while it trains."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from chela.records.state import PROGRESS
from chela.training.history import History

EVERY_SECONDS = 5.0  # soon enough for who watches, and no load for a network disk


class Heartbeat(Callback):
    """Writes ``progress.json``: the step, the clock, and the newest of what ``History`` has.

    Every ``EVERY_SECONDS`` at most; the first and the last step always.

    Args:
        folder: the run's.
        history: of the same trainer.
    """

    def __init__(self, folder: Path, history: History) -> None:
        self.file = folder / PROGRESS
        self.history = history
        self._first = (0, 0.0)  # step and clock at the start of this session
        self._last = 0.0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """The step where this session begins, which need not be the first."""
        self._first = (trainer.global_step, time.time())
        self._write(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Write when it is time."""
        if time.monotonic() - self._last >= EVERY_SECONDS:
            self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """The last step; what follows is the test."""
        self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        self._last = time.monotonic()
        if not trainer.is_global_zero:
            return
        latest = self.history.latest
        content = {
            "step": trainer.global_step,
            "steps": trainer.max_steps,
            "time": time.time(),
            "first_step": self._first[0],
            "first_time": self._first[1],
            "tokens_per_second": latest.get("tokens_per_second"),
            "metric": self.history.objective.primary.name,
            "value": latest.get(self.history.primary),
        }
        # not flushed to the disk: who reads it sees the old file or the new one, and after a
        # crash of the machine nobody needs either
        unfinished = self.file.with_name(f".{PROGRESS}.unfinished")
        try:
            unfinished.write_text(json.dumps(content))
            unfinished.replace(self.file)
        except OSError:  # a full disk is for the next checkpoint to say, if it is still full then
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
