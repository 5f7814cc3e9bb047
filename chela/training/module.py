"""One training step, one evaluation: the classifier as a LightningModule."""

from __future__ import annotations

import math
from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from chela.errors import RunError
from chela.training.distributed import total
from chela.training.optim import build_optimizer, build_schedule
from chela.training.settings import OptimizerConfig, ScheduleConfig
from tasks.base import Batch

STAGES = ("train", "val", "test")


class NonFinite(RunError):
    """The loss or the gradient was not finite; the step has changed no weight.

    ``evidence`` holds what is needed to look at that step again.
    """

    def __init__(self, message: str, evidence: dict[str, Any]) -> None:
        super().__init__(message)
        self.evidence = evidence


class ClassificationModule(L.LightningModule):
    """Cross-entropy training and evaluation of any ``(values, lengths) -> logits`` model.

    Metrics are exact means over samples, not means of batch means. Those of training run over the
    interval since they were last read and are part of the checkpoint, so that a resumed run logs
    what an uninterrupted one would.
    """

    skipped: Tensor  # steps without an update so far, because something was not finite
    everything: Tensor
    bad: dict[str, Tensor]  # the last of them: step, loss, norm of the gradient, rows

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        total_steps: int,
        max_skipped_steps: int = 0,
        padded: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer_config = optimizer
        self.schedule_config = schedule
        self.total_steps = total_steps
        self.max_skipped_steps = max_skipped_steps
        self.padded = padded
        self.bad = {}
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))
        self.register_buffer("everything", torch.ones(()), persistent=False)  # counts in evaluation
        # "disable": torchmetrics would ask the device after each batch whether there are NaNs
        self.losses = nn.ModuleDict(
            {f"{stage}_loss": MeanMetric(nan_strategy="disable") for stage in STAGES}
        )
        self.accuracies = nn.ModuleDict(
            {f"{stage}_accuracy": MeanMetric(nan_strategy="disable") for stage in STAGES}
        )
        for metric in self._metrics("train").values():
            metric.persistent(True)

    def forward(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        """Logits (B, classes) of a batch (B, L) or of pairs (B, 2, L); lengths None: not padded."""
        return self.model(values, lengths)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The mean loss of a batch; one that is not finite makes no update, see ``skipped``."""
        logits, losses = self._losses(batch)
        loss = losses.mean()
        self._count("train", batch, logits, losses, torch.isfinite(loss))
        self.batch, self.loss = batch, loss.detach()
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Add a batch to the validation metrics."""
        self._count("val", batch, *self._losses(batch), self.everything)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Add a batch to the test metrics."""
        self._count("test", batch, *self._losses(batch), self.everything)

    def on_validation_epoch_end(self) -> None:
        """Hand the validation metrics to the callbacks."""
        self.log_dict(self.read_metrics("val"))

    def on_test_epoch_end(self) -> None:
        """Hand the test metrics to the caller of ``trainer.test``."""
        self.log_dict(self.read_metrics("test"))

    def read_metrics(self, stage: str) -> dict[str, float]:
        """``{"train/loss": ..., "train/accuracy": ..., "train/samples": ...}``, and begin anew."""
        weight = cast("Tensor", self.losses[f"{stage}_loss"].weight)
        values = {f"{stage}/samples": total(weight).item()}
        for name, metric in self._metrics(stage).items():
            values[f"{stage}/{name}"] = metric.compute().item()
            metric.reset()
        return values

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the training metrics of all processes together, as rank 0 will have them."""
        if self.trainer.world_size > 1:
            for name in self._metric_states(checkpoint):
                checkpoint["state_dict"][name] = total(checkpoint["state_dict"][name])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Begin the metrics of the other processes at zero: rank 0 has all of them."""
        if self.trainer.global_rank > 0:
            for name in self._metric_states(checkpoint):
                checkpoint["state_dict"][name].zero_()

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by global norm, and keep that norm for the log.

        If it is not finite, the fused optimizer leaves weights and moments as they are. That is
        decided on the device, which the host does not wait for; ``check`` asks now and then.

        Raises:
            NonFinite: on a CPU, where asking costs nothing: at once.
        """
        limit = float("inf") if gradient_clip_val is None else gradient_clip_val
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit).detach()
        bad = ~torch.isfinite(norm)
        self.trainer.optimizers[0].found_inf = bad.float()  # type: ignore[attr-defined]
        self.skipped += bad
        step = torch.full_like(self.skipped, self.global_step + 1)
        new = {"step": step, "loss": self.loss, "norm": norm, "rows": self.batch.index}
        old = self.bad or new
        self.bad = {name: torch.where(bad, new[name], old[name]) for name in new}
        self.gradient_norm = norm
        if self.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Stop if more steps were skipped than may be.

        Raises:
            NonFinite: with the last of these steps, its batch, and what was not finite.
        """
        if self.skipped <= self.max_skipped_steps:
            return
        step, rows = int(self.bad["step"]), self.bad["rows"].tolist()
        loss, norm = self.bad["loss"].item(), self.bad["norm"].item()
        what = f"the gradient's norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        before = f", after {int(self.skipped) - 1} skipped ones" if self.skipped > 1 else ""
        raise NonFinite(
            f"{what} at step {step}{before}; it has changed no weight.\n"
            f"  the batch: rows {rows} of the training split\n"
            "  try: a lower learning rate, a longer warm-up, trainer.precision=float32",
            {"step": step, "rows": rows, "loss": loss, "gradient_norm": norm},
        )

    def configure_optimizers(self) -> Any:
        """The optimizer's groups and the schedule, stepped once per optimizer step."""
        optimizer = build_optimizer(self.model, self.optimizer_config)
        schedule = build_schedule(optimizer, self.total_steps, self.schedule_config)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _metric_states(self, checkpoint: dict[str, Any]) -> list[str]:
        """The names of the metrics' states, sums all of them, in a checkpoint."""
        return [
            name for name in checkpoint["state_dict"] if name.startswith(("losses.", "accuracies."))
        ]

    def _metrics(self, stage: str) -> dict[str, Metric]:
        loss, accuracy = self.losses[f"{stage}_loss"], self.accuracies[f"{stage}_accuracy"]
        return {"loss": cast("Metric", loss), "accuracy": cast("Metric", accuracy)}

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        lengths = batch.lengths if self.padded else None  # without, nothing needs a mask
        logits = self(batch.values, lengths).float()  # (B, classes)
        return logits, F.cross_entropy(logits, batch.labels, reduction="none")  # (B,)

    def _count(
        self, stage: str, batch: Batch, logits: Tensor, losses: Tensor, counts: Tensor
    ) -> None:
        """Add a batch to the metrics; not if ``counts``, a scalar on the device, is zero."""
        weights = counts.to(losses.dtype).expand_as(losses)
        metrics = self._metrics(stage)
        metrics["loss"].update(torch.where(weights > 0, losses.detach(), 0.0), weights)
        metrics["accuracy"].update((logits.argmax(-1) == batch.labels).float(), weights)
