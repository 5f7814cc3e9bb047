"""The run's log: rows of metrics by step, for the CSV file, the record and W&B."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from chela.config.settings import TrainerConfig
from chela.layers.sequence import part
from chela.objectives.base import Metric, Objective
from chela.records.files import write_text
from chela.training.distributed import is_leader, total
from chela.training.module import TrainingModule
from tasks.base import Batch


def columns(metrics: Iterable[Metric]) -> list[str]:
    """Of the CSV file, in order."""
    names = [f"{stage}/{each.name}" for stage in ("train", "val") for each in metrics]
    return ["step", "epoch", *names, "learning_rate", "gradient_norm", "tokens_per_second"]


class History(Callback):
    """A row every ``log_every_steps`` steps and at each validation; part of the checkpoint.

    ``tokens_per_second`` counts true tokens (of both documents of a pair; padding does not count)
    over the wall time of the interval, with waiting for data and saving, without validation.
    """

    def __init__(
        self, file: Path, config: TrainerConfig, train_samples: int, objective: Objective
    ) -> None:
        self.file, self.config, self.objective = file, config, objective
        self.samples_per_epoch = train_samples
        self.rows: list[dict[str, float]] = []
        self.latest: dict[str, float] = {}  # the newest value of each column
        self.step = 0  # done so far, logged or not
        self.train_seconds = 0.0
        self.tokens = self.tokens_saved = 0  # up to the latest logged step, the latest checkpoint
        self.seconds_saved = 0.0
        self.skipped_steps = 0  # without an update, because something was not finite
        self._interval_tokens: int | torch.Tensor = 0
        self._interval_seconds = 0.0
        self._mark = 0.0
        self._device = torch.device("cpu")  # where the processes can add up

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, and how long they took."""
        tokens = self._tokens_of_all()
        seconds = self._interval_seconds + time.perf_counter() - self._mark
        self.tokens_saved, self.seconds_saved = self.tokens + tokens, self.train_seconds + seconds
        return {
            "rows": self.rows,
            "train_seconds": self.train_seconds,
            "tokens": self.tokens,
            "skipped_steps": self.skipped_steps,
            "interval_tokens": tokens,
            "interval_seconds": seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the checkpoint's rows; what was logged after it is logged again."""
        self.rows = state["rows"]
        self.latest = {name: value for row in self.rows for name, value in row.items()}
        self.step = int(self.latest.get("step", 0))
        self.train_seconds, self.tokens = state["train_seconds"], state["tokens"]
        self.skipped_steps = state["skipped_steps"]
        self._interval_tokens = state["interval_tokens"] if is_leader() else 0
        self._interval_seconds = state["interval_seconds"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the clock."""
        self._device, self.step = module.device, trainer.global_step
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Batch, index: int
    ) -> None:
        """Count tokens; every ``log_every_steps`` steps write a row."""
        assert isinstance(module, TrainingModule)
        if part() == 0:  # of those that hold these sequences together
            self._interval_tokens = self._interval_tokens + batch.lengths.sum()
        self.step = step = trainer.global_step
        if step % self.config.log_every_steps and step < trainer.max_steps:
            return
        module.check()
        row = module.read_metrics()  # waits for the device: the clock is right after it
        self._stop_clock()
        tokens = self._tokens_of_all()
        self.tokens += tokens
        self.skipped_steps = int(module.skipped)
        self.train_seconds += self._interval_seconds
        self._add(
            trainer,
            {
                **row,
                "learning_rate": float(max(g["lr"] for g in trainer.optimizers[0].param_groups)),
                "gradient_norm": module.gradient_norm.item(),
                "tokens_per_second": tokens / max(self._interval_seconds, 1e-9),
            },
        )
        self._interval_tokens, self._interval_seconds = 0, 0.0

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Stop the clock: validation is not training. Stop, if too many steps were not finite."""
        assert isinstance(module, TrainingModule)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._stop_clock()
        module.check()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """A row for the validation; the clock goes on."""
        names = [f"val/{each.name}" for each in self.objective.metrics]
        self._add(trainer, {name: float(trainer.callback_metrics[name]) for name in names})
        self._mark = time.perf_counter()

    def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
        """The CSV file holds what the checkpoint holds."""
        if trainer.is_global_zero:
            write_text(self.file, self.as_csv())

    def as_csv(self) -> str:
        """All rows under ``columns``; a value that a row does not have is left empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, columns(self.objective.metrics), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    @property
    def primary(self) -> str:
        """The column of what selects."""
        return f"val/{self.objective.primary.name}"

    def epochs(self, step: int) -> float:
        """Passes over the training split that ``step`` steps are."""
        return round(step * self.config.batch_size / self.samples_per_epoch, 4)

    def _tokens_of_all(self) -> int:
        """The interval's tokens in all processes together."""
        return int(total(torch.as_tensor(self._interval_tokens, device=self._device)))

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        self._interval_seconds += now - self._mark
        self._mark = now

    def _add(self, trainer: L.Trainer, values: dict[str, float]) -> None:
        step = trainer.global_step
        row = {"step": step, "epoch": self.epochs(step), **values}
        self.latest.update(row)
        if self.rows and self.rows[-1]["step"] == step:
            self.rows[-1].update(row)
        else:
            self.rows.append(row)
