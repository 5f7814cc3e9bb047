"""One training step, one evaluation: a model and its objective as a LightningModule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from chela.config.schema import RunConfig
from chela.layers.basic import compute_dtype
from chela.layers.processes import processes
from chela.layers.sequence import replicas
from chela.objectives.base import Answers, Means, Objective
from chela.training.augmentation import Mixed
from chela.training.distributed import add_up_gradients, refuse_apart, total
from chela.training.evaluation import Evaluation, means_of
from chela.training.graphs import StepGraphs
from chela.training.narrow import NarrowWeights
from chela.training.nonfinite import NonFinite
from chela.training.optim import build_optimizer, build_schedule, follow_the_device, portable
from chela.training.rehearsal import put_back
from tasks.base import Batch
from tasks.loader import TrainLoader

# What a step is made of, by these names in a profile.
STAGES = ("forward", "backward", "clip and books", "optimizer")


class TrainingModule(L.LightningModule):
    """Training and evaluation of any ``(values, lengths) -> logits`` model for an objective.

    Metrics are exact means over targets, not means of batch means. Those of training run over the
    interval since they were last read and are part of the checkpoint, so that a resumed run logs
    what an uninterrupted one would. Nothing in a step waits for the device.

    Args:
        model: called with values and lengths, the latter None where nothing is padded.
        objective: judges its answers.
        config: of the run: the optimizer, the schedule and how a step is computed.
        total_steps: of the run.
        padded: whether batches hold padding.
        graph: make each step one CUDA graph; on one GPU.
        augment: what makes of a batch the one to train on, see ``augmentation_of``.
    """

    steps: Tensor  # so far, those skipped among them
    skipped: Tensor  # steps without an update so far, because something was not finite
    sums: Tensor  # (3,) loss, hits and targets of the interval
    gradient_norm: Tensor  # of the latest step, before it was clipped
    bad: dict[str, Tensor]  # the last step that was not finite: its number, loss, norm, rows

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        config: RunConfig,
        total_steps: int,
        padded: bool,
        graph: bool,
        augment: Callable[[Batch], Batch | Mixed],
    ) -> None:
        super().__init__()
        self.model, self.objective, self.config = model, objective, config
        self.total_steps, self.padded, self.graph = total_steps, padded, graph
        self._augment = augment
        self.bad = {}
        self.evaluation = Evaluation(self._sums, graph)
        self.tested = Means(0.0, 0.0, 0)
        self.tested_kinds: list[Means] = []
        self.between_recordings: Callable[[], None] = lambda: None  # before the first step
        self._narrow: NarrowWeights | None = None
        self._graphs: StepGraphs | None = None
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))
        self.register_buffer("sums", torch.zeros(3, dtype=torch.float64))
        self.register_buffer("gradient_norm", torch.zeros(()), persistent=False)

    @property
    def loader(self) -> TrainLoader:
        """What hands out the batches of training."""
        return cast("TrainLoader", self.trainer.train_dataloader)

    def on_train_start(self) -> None:
        """Where steps are graphs: record them, as far as it is known which there will be."""
        if not self.graph:
            return
        optimizer, move = self.trainer.optimizers[0], self.trainer.strategy.batch_to_device
        follow_the_device(optimizer, self.device)
        self._graphs = StepGraphs(self.whole_step, partial(put_back, self, optimizer))
        batches = (move(each, self.device) for each in self.loader.of_each_width())
        with self.trainer.precision_plugin.train_step_context():  # as Lightning's around a step
            self._graphs.record(batches, self.between_recordings)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The mean loss of a batch; one that is not finite makes no update, see ``skipped``."""
        return self.whole_step(batch) if self._graphs is None else self._graphs(batch)

    def whole_step(self, batch: Batch) -> Tensor:
        """Forward, backward and update of a batch; the loss. On a GPU the host waits for nothing.

        Raises:
            NonFinite: on a CPU, where asking costs nothing: at once.
        """
        optimizer = self.trainer.optimizers[0]
        optimizer.zero_grad(set_to_none=True)
        asked, found = self._asked(batch), []
        with self._narrow_weights():
            for part in self._parts(self._augment(batch)):
                with self.trainer.precision_plugin.forward_context(), record_function("forward"):
                    loss, sums = self._loss(part, asked)
                # Lightning steps inside of an autocast
                with torch.autocast(self.device.type, enabled=False), record_function("backward"):
                    loss.backward()
                found.append(sums)
        with record_function("clip and books"):
            self._count(batch, torch.stack(found).sum(0))
            add_up_gradients(self.model)
            self._clip(self.trainer.gradient_clip_val)
        with record_function("optimizer"):
            optimizer.step()
        with record_function("clip and books"):
            self._note_step()
        return self._latest["loss"]

    @torch.no_grad()
    def look_at(self, batch: Batch) -> None:
        """Forward alone, of samples as they are: averages that run see them, nothing else moves."""
        with torch.compiler.set_stance("force_eager"):  # too little to be compiled for
            for part in self._parts(batch):
                with self.trainer.precision_plugin.forward_context():
                    self._ask(part)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Lightning's hook; a whole step has been backward already."""

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Lightning's hook; a whole step has its own gradients."""

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Lightning's hook around a step; a whole step has updated the weights."""
        optimizer_closure()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Add a batch to the metrics of the pass."""
        self.evaluation.add(batch, batch_index, self._graphs)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Hand the validation metrics to the callbacks, if they are of one model.

        Raises:
            RunError: of several processes one has other weights.
        """
        refuse_apart(self.model)
        means, _ = self.evaluation.result()
        values = self.objective.values(means)
        self.log_dict({f"val/{name}": value for name, value in values.items()})

    def on_test_epoch_end(self) -> None:
        """Keep what the test came to."""
        self.tested, self.tested_kinds = self.evaluation.result()

    def read_metrics(self) -> dict[str, float]:
        """``{"train/loss": ..., "train/accuracy": ...}`` of the interval, and begin a new one."""
        values = self.objective.values(means_of(self.sums))
        return {f"train/{name}": value for name, value in values.items()}

    def teardown(self, stage: str) -> None:
        """Lightning moves the model after each stage: the graphs are of no use any more."""
        self.forget_graphs()

    def forget_graphs(self) -> None:
        """Give back the memory of what was recorded; it is recorded anew when it is needed."""
        self._graphs = self._narrow = None
        self.evaluation.forget_graphs()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the sums of all processes together, as rank 0 will have them, and plain rates."""
        checkpoint["state_dict"]["sums"] = total(checkpoint["state_dict"]["sums"])
        checkpoint["optimizer_states"] = [
            portable(state) for state in checkpoint.get("optimizer_states", [])
        ]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Begin the sums of the other processes at zero: rank 0 has all of them."""
        if self.trainer.global_rank > 0:
            checkpoint["state_dict"]["sums"].zero_()

    def check(self) -> None:
        """Stop if more steps were skipped than may be.

        Raises:
            NonFinite: with the last of these steps, its batch, and what was not finite.
        """
        if self.skipped > self.config.trainer.max_skipped_steps:
            skipped = int(self.skipped)
            raise NonFinite.of(self.bad, skipped, self.model, self.trainer.optimizers[0])

    def configure_optimizers(self) -> Any:
        """The optimizer's groups and the schedule, stepped once per optimizer step."""
        optimizer = build_optimizer(self.model, self.config.optimizer)
        schedule = build_schedule(optimizer, self.total_steps, self.config.schedule)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def _narrow_weights(self) -> AbstractContextManager[None]:
        """Those that compute a step under autocast, unless gradients of parts are to be added up.

        Narrow gradients are as good as wide ones only where there is one of each.
        """
        with self.trainer.precision_plugin.forward_context():
            dtype = compute_dtype(self.sums)
        if dtype == self.sums.dtype or self.config.trainer.micro_batch_size is not None:
            return nullcontext()
        if self._narrow is None:
            blocks = self.model.get_submodule("backbone.blocks")
            self._narrow = NarrowWeights(blocks, dtype)
        return self._narrow() if self._narrow else nullcontext()

    def _parts(self, batch: Batch | Mixed) -> Iterator[Batch | Mixed]:
        """What is computed at once in training."""
        size = len(batch.targets)
        part = self.config.trainer.micro_batch_size or size
        for start in range(0, size, part):
            yield type(batch)(*(each[start : start + part] for each in batch))

    def _asked(self, batch: Batch) -> Tensor:
        """The targets that a step has in all."""
        asked = self.objective.asked(batch.targets).sum()
        if self.objective.per_sample:
            asked = asked * replicas()
        else:  # of those that hold a sequence together one counts
            asked = total(asked) * replicas() / processes()
        return asked.clamp(min=1)

    def _loss(self, part: Batch | Mixed, asked: Tensor) -> tuple[Tensor, Tensor]:
        """A part's term of a step's mean loss, and its (3,) sums of losses, hits and targets."""
        losses, hits, mine = self._judged(part)
        sums = torch.stack([losses.detach().sum(), hits.sum(), mine.sum()])
        return losses.sum() / sums[2].clamp(min=1) * (sums[2] / asked), sums

    def _judged(self, part: Batch | Mixed) -> tuple[Tensor, Tensor, Tensor]:
        """What the objective says of a part of a training batch, its targets smoothed and mixed."""
        judge = partial(self.objective.judge, smoothing=self.config.trainer.label_smoothing)
        answers, targets = self._ask(part)
        losses, hits, asked = judge(answers, targets)
        if isinstance(part, Mixed):
            losses = torch.lerp(judge(answers, part.others)[0], losses, part.share)
        return losses, hits, asked

    def _count(self, batch: Batch, sums: Tensor) -> None:
        """Add a training batch to the metrics, if its loss is finite."""
        loss = sums[0] / sums[2].clamp(min=1)
        self._latest = {"loss": loss, "rows": batch.index}
        self.sums += torch.where(loss.abs() < math.inf, sums, 0.0)

    def _clip(self, limit: float | int | None) -> None:
        """Clip the gradients by their global norm, and keep that for the log.

        If it is not finite, the optimizer leaves weights and moments as they are. That is decided
        on the device, which the host does not wait for; ``check`` asks now and then.
        """
        parameters = list(self.model.parameters())
        gradients = [each.grad for each in parameters if each.grad is not None]
        norm = nn.utils.get_total_norm(gradients).detach()
        if limit is not None:
            nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        bad = ~(norm < math.inf)  # or NaN
        self.trainer.optimizers[0].found_inf = bad.float()  # type: ignore[attr-defined]
        self._latest["norm"] = norm

    def _note_step(self) -> None:
        """Count the step, and keep what is known of one that the optimizer did not make.

        Raises:
            NonFinite: on a CPU, where asking costs nothing: at once.
        """
        bad = self.trainer.optimizers[0].found_inf > 0  # type: ignore[attr-defined]
        self.steps += 1
        self.skipped += bad
        self.gradient_norm.copy_(self._latest["norm"])
        new = {**self._latest, "step": self.steps}
        if not self.bad:
            self.bad = {name: value.clone() for name, value in new.items()}
        for name, value in new.items():
            torch.where(bad, value, self.bad[name], out=self.bad[name])
        if self.device.type == "cpu":
            self.check()

    def _sums(self, batch: Batch) -> Tensor:
        """``SUMS`` of each sample of a batch (B, 4)."""
        with self.trainer.precision_plugin.forward_context():
            return self.objective.evaluate(*self._ask(batch))

    def _ask(self, batch: Batch | Mixed) -> tuple[Answers, Tensor]:
        lengths = batch.lengths if self.padded else None  # without, nothing needs a mask
        return self.objective.ask(self.model, batch.values, lengths, batch.targets)
