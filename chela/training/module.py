"""One training step, one evaluation: the classifier as a LightningModule."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from chela.errors import RunError
from chela.training.optim import build_optimizer, build_schedule
from chela.training.settings import OptimizerConfig, ScheduleConfig
from tasks.base import Batch

STAGES = ("train", "val", "test")


class NonFinite(RunError):
    """The loss or the gradient is not finite; raised before any weight has changed."""


class ClassificationModule(L.LightningModule):
    """Cross-entropy training and evaluation of any ``(values, lengths) -> logits`` model.

    Metrics are exact means over samples, not means of batch means. Those of training run over the
    interval since they were last read and are part of the checkpoint, so that a resumed run logs
    what an uninterrupted one would.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        total_steps: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer_config = optimizer
        self.schedule_config = schedule
        self.total_steps = total_steps
        self.losses = nn.ModuleDict({f"{stage}_loss": MeanMetric() for stage in STAGES})
        self.accuracies = nn.ModuleDict(
            {
                f"{stage}_accuracy": MulticlassAccuracy(
                    num_classes, average="micro", validate_args=False
                )
                for stage in STAGES
            }
        )
        for metric in self._metrics("train").values():
            metric.persistent(True)

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, classes) of a padded batch (B, L) with lengths (B,), or of pairs (B, 2, L)."""
        return self.model(values, lengths)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The mean loss of a batch.

        Raises:
            NonFinite: the loss is infinite or not a number.
        """
        logits, losses = self._losses(batch)
        loss = losses.mean()
        if not torch.isfinite(loss):
            self._stop("the loss", loss, batch)
        self._count("train", batch, logits, losses)
        self.batch = batch
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Add a batch to the validation metrics."""
        self._count("val", batch, *self._losses(batch))

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Add a batch to the test metrics."""
        self._count("test", batch, *self._losses(batch))

    def on_validation_epoch_end(self) -> None:
        """Hand the validation metrics to the callbacks; ``History`` gives them to the loggers."""
        self.log_dict(self.read_metrics("val"), logger=False)

    def on_test_epoch_end(self) -> None:
        """Hand the test metrics to the caller of ``trainer.test``, and to the loggers."""
        self.log_dict(self.read_metrics("test"))

    def read_metrics(self, stage: str) -> dict[str, float]:
        """``{"train/loss": ..., "train/accuracy": ..., "train/samples": ...}``, and begin anew."""
        weight = cast("Tensor", self.losses[f"{stage}_loss"].weight)
        values = {f"{stage}/samples": weight.item()}
        for name, metric in self._metrics(stage).items():
            values[f"{stage}/{name}"] = metric.compute().item()
            metric.reset()
        return values

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by global norm, and keep that norm for the log.

        Raises:
            NonFinite: the gradient's norm is infinite or not a number.
        """
        limit = float("inf") if gradient_clip_val is None else gradient_clip_val
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        if not torch.isfinite(norm):
            self._stop("the gradient's norm", norm, self.batch)
        self.gradient_norm = norm.detach()

    def configure_optimizers(self) -> Any:
        """The optimizer's groups and the schedule, stepped once per optimizer step."""
        optimizer = build_optimizer(self.model, self.optimizer_config)
        schedule = build_schedule(optimizer, self.total_steps, self.schedule_config)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _metrics(self, stage: str) -> dict[str, Metric]:
        loss, accuracy = self.losses[f"{stage}_loss"], self.accuracies[f"{stage}_accuracy"]
        return {"loss": cast("Metric", loss), "accuracy": cast("Metric", accuracy)}

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = self(batch.values, batch.lengths).float()  # (B, classes)
        return logits, F.cross_entropy(logits, batch.labels, reduction="none")  # (B,)

    def _count(self, stage: str, batch: Batch, logits: Tensor, losses: Tensor) -> None:
        metrics = self._metrics(stage)
        metrics["loss"].update(losses.detach())
        metrics["accuracy"].update(logits.detach(), batch.labels)

    def _stop(self, what: str, value: Tensor, batch: Batch) -> None:
        raise NonFinite(
            f"{what} is {value.item()} at step {self.global_step + 1}; it has changed no weight.\n"
            f"  the batch: rows {batch.index.tolist()} of the training split\n"
            "  try: a lower learning rate, a longer warm-up, precision=float32"
        )
