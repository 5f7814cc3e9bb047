"""The rows of a run's history on their way to Weights & Biases."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from chela.track.wandb_run import WandbRun
from chela.training.history import History


class WandbRows(Callback):
    """Sends each row of ``History`` once it is complete; stands after it among the callbacks.

    A row grows until its step is over: the validation may come after the logged loss. W&B takes a
    step once, so a row waits for the next step. A run that goes on offers all rows of its
    checkpoint again, and ``WandbRun`` leaves out those that the server has: whatever an earlier
    session could not send, this one does.
    """

    def __init__(self, history: History, run: WandbRun) -> None:
        self.history, self.run = history, run
        self._sent = 0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Send the rows of the steps before this one."""
        rows = self.history.rows
        while self._sent < len(rows) and rows[self._sent]["step"] < trainer.global_step:
            self._send(self._sent + 1)

    def on_test_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """The last row has its validation by now, maybe from a session before."""
        self._send(len(self.history.rows))

    def _send(self, until: int) -> None:
        self.run.send(self.history.rows[self._sent : until])
        self._sent = until
