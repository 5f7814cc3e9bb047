"""BatchNorm's running averages, taken anew before each validation.

A running average of training lags behind the weights, and where batches are sorted by length it
depends on which lengths came last; early in training that costs points (docs/tried.md). So the
latest batches of training are looked at once more, with the weights as they are: the plain mean of
their means, and of their variances (which training divides by, too), is what evaluation uses
("precise BN", Wu & Johnson 2021).
"""

from __future__ import annotations

import sys

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from chela.layers.norms import BatchNorm
from chela.training.module import TrainingModule


class RunningStatistics(Callback):
    """Before a validation: the averages are over the batches that BatchNorm calls recent.

    Random numbers go on as if nothing had happened, so how often a run validates does not change
    how it trains.
    """

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the latest batches, unless no BatchNorm asks for them."""
        assert isinstance(pl_module, TrainingModule)
        norms = [norm for norm in pl_module.model.modules() if isinstance(norm, BatchNorm)]
        if not norms:
            return
        device = pl_module.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            recent = norms[0].recent
            for norm in norms:
                norm.restart()
                norm.recent = sys.maxsize  # a plain mean, in however many parts a batch is seen
            pl_module.model.train()
            for batch in pl_module.loader.latest(recent):
                pl_module.look_at(trainer.strategy.batch_to_device(batch, device))
            pl_module.model.eval()
        for norm in norms:
            norm.recent = recent
