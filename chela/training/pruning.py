"""Stopping a run that promises nothing, as a search decides; the run is saved and could go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from chela.training.history import History


class Pruned(Exception):
    """A search stopped the run after a validation."""


class Pruning(Callback):
    """Tells what selects of each validation, and stops the run if the answer is yes.

    Args:
        history: of the run; a resumed one has the validations before.
        report: called with the number of the validation, from 1 on, and its value; answers
            whether to stop. The last validation of a run stops nothing.
    """

    def __init__(self, history: History, report: Callable[[int, float], bool]) -> None:
        self.history = history
        self.report = report
        self._told = 0
        self._stop = False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Tell the validations of the sessions before."""
        self._tell()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Tell the newest one; ``History`` comes first and has it."""
        self._tell()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Stop before the next step: by then the validation's step is saved.

        Raises:
            Pruned: the answer was yes.
        """
        if self._stop:
            raise Pruned(f"pruned at step {trainer.global_step}, after validation {self._told}")

    def _tell(self) -> None:
        name = self.history.primary
        values = [row[name] for row in self.history.rows if name in row]
        for value in values[self._told :]:
            self._told += 1
            self._stop = self.report(self._told, value)
