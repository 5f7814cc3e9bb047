"""How fast a model trains and evaluates: in Lightning's loop, and the step alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from chela.bench.exchange import exchanged, least_of_a_step
from chela.bench.measure import now
from chela.bench.profiling import Profile, profiled
from chela.config.schema import RunConfig
from chela.layers.exchanges import sum_of_all
from chela.layers.sequence import parts, replicas
from chela.mixers.over_shares import Shares
from chela.training import build
from chela.training.checks import check_beforehand
from chela.training.data import DataModule
from chela.training.engine import Engine, resolve
from chela.training.module import TrainingModule
from tasks.base import Batch, TaskSpec
from tasks.loader import Batches, EvalLoader, TrainLoader
from tasks.order import TrainOrder

WARM_UP = 30  # steps of a task; as many as in earlier logs, so that the same batches are timed


@dataclass
class Speed:
    """What was measured; tokens are positions of the batches, padding among them.

    Of several devices together but for memory, the profile and the floor: these are of one.
    """

    loop: float  # tokens per second of training in Lightning's loop
    step: float  # of the step alone, on the loop's batches
    evaluation: float  # of the evaluation step alone
    true_share: float  # of the loop's tokens that are no padding
    peak_bytes: int  # of GPU memory, 0 on a CPU
    compile_seconds: float  # of the first steps: compilers, the recording of graphs, all lengths
    profile: Profile  # of a step on the longest of the loop's batches
    floor_bytes: int  # that a step moves at least; 0 where its mixer does not say
    sent_bytes: int  # in a step, to devices that hold parts of the same sequences; of all of these
    least_bytes: int  # that they send at least, see ``least_of_a_step``


def measure(
    config: RunConfig,
    spec: TaskSpec,
    engine: Engine,
    data: L.LightningDataModule,
    padded: bool,
    warm_up: int,
    steps: int,
) -> Speed:
    """Train a fresh model as a run does, without its files, and time it.

    Args:
        config: of the run.
        spec: what the samples look like.
        engine: that computes.
        data: ``warm_up + steps`` batches of training, and one at least of validation.
        padded: whether batches hold padding.
        warm_up: steps that are not timed.
        steps: to be timed.
    """
    build.free_memory(engine.device)
    L.seed_everything(config.seed, workers=True, verbose=False)
    total = warm_up + steps
    module = build.build_module(config, spec, engine, total, padded)
    watch = _Stopwatch(warm_up, total, config.model.backbone.dim, engine)
    build.quiet_lightning()
    quiet = replace(config.trainer, progress=False)
    trainer = build.build_trainer(quiet, engine, Path(), total, total + 1, [watch])
    try:
        trainer.fit(module, datamodule=data)
    finally:
        module.forget_graphs()
    return watch.speed


def measure_on_task(config: RunConfig, steps: int) -> Speed:
    """The speed on the task's own batches; they are prepared if they are not.

    Raises:
        DataError: the source is missing or malformed.
    """
    engine = resolve(config)
    task = build.build_task(config)
    check_beforehand(task, config, engine)
    task.prepare_data()
    task.setup()
    data = DataModule(task, config.trainer, engine, config.seed, WARM_UP + steps)
    return measure(config, task.spec, engine, data, task.is_padded, WARM_UP, steps)


def measure_at_length(config: RunConfig, length: int, tokens: int, steps: int) -> Speed:
    """The speed on random tokens of one length.

    Args:
        config: of the run; its batch size is not used.
        length: of every sequence.
        tokens: of a batch, whatever the length; a sequence at least.
        steps: to be timed.

    Raises:
        torch.OutOfMemoryError: the model does not fit at this length.
    """
    plain = replace(config.trainer, augment=False)  # random tokens have no other form
    config, engine = replace(config, trainer=plain), resolve(config)
    size, device = max(1, tokens // length // plain.replicas), engine.device
    batch = Batch(
        values=torch.randint(1, 20, (size, length), device=device),
        lengths=torch.full((size,), length, device=device),
        targets=torch.randint(0, 10, (size,), device=device),
        index=torch.arange(size, device=device),
    )
    data = _Again(batch, 4 + steps)
    return measure(config, random_tokens(length), engine, data, False, warm_up=4, steps=steps)


def random_tokens(length: int) -> TaskSpec:
    """What the samples look like that ``measure_at_length`` draws."""
    return TaskSpec("random", num_classes=10, max_length=length, vocab_size=20, input_dim=1)


class _Again(L.LightningDataModule):
    """One batch, ``n`` times in training and once in validation; itself what reads it."""

    widths = None  # there is one

    def __init__(self, batch: Batch, n: int) -> None:
        super().__init__()
        self.batch, self.n, self.size = batch, n, len(batch.targets)

    def read(self, batches: Batches) -> Iterator[Batch]:
        """The batch, whatever rows it is asked for."""
        return (self.batch for _ in batches)

    def train_dataloader(self) -> TrainLoader:
        """``n`` times."""
        return TrainLoader(self, TrainOrder(self.size, self.size, self.n, seed=0))

    def val_dataloader(self) -> EvalLoader:
        """Once."""
        return EvalLoader(self, self.size, self.size)


class _Stopwatch(Callback):
    """Times the loop from step ``warm_up`` to step ``total``, then the bare steps."""

    speed: Speed

    def __init__(self, warm_up: int, total: int, dim: int, engine: Engine) -> None:
        self.warm_up, self.total = warm_up, total
        self.dim, self.number_bytes = dim, engine.dtype.itemsize  # of activations
        self.compiled = engine.step == "compile"
        self.batches: list[Batch] = []  # of the timed steps
        self.began = self.warm = 0.0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Compilers start."""
        self.began = now(module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Batch, index: int
    ) -> None:
        """Keep the batch; at the last step measure the rest."""
        assert isinstance(module, TrainingModule)
        if trainer.global_step > self.warm_up:
            self.batches.append(batch)
        if trainer.global_step == self.warm_up:
            if self.compiled:  # a graph has met them all
                for each in module.loader.of_each_width():
                    module.training_step(trainer.strategy.batch_to_device(each, module.device), 0)
            self.warm = now(module.device)
        if trainer.global_step == self.total:
            loop = now(module.device) - self.warm
            self._finish(trainer, module, loop)

    def _finish(self, trainer: L.Trainer, module: TrainingModule, loop: float) -> None:
        device, batches = module.device, self.batches
        longest = max(batches, key=_positions)
        size, tokens = _positions(longest), sum(map(_positions, batches))
        train = partial(module.training_step, batch_index=0)
        whole = partial(module.whole_step, longest)
        _say(trainer, "loop", replicas() * tokens / loop)
        step = _seconds(train, batches, device)
        _say(trainer, "step", replicas() * tokens / step)
        peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
        profile = profiled(partial(train, longest), whole, device)
        with exchanged() as sent:
            whole()
        sequences, length = longest.lengths.numel(), longest.values.shape[longest.lengths.ndim]
        shares = Shares(sequences, length, parts(), self.number_bytes)
        val = next(iter(trainer.datamodule.val_dataloader()))  # type: ignore[attr-defined]
        val = Batch(*(each.to(device) for each in val))
        module.eval()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            evaluate = partial(module.validation_step, batch_index=0)
            evaluation = _seconds(evaluate, [val] * len(batches), device)
        module.train()
        self.speed = Speed(
            loop=replicas() * tokens / loop,
            step=replicas() * tokens / step,
            evaluation=replicas() * _positions(val) * len(batches) / evaluation,
            true_share=sum(int(each.lengths.sum()) for each in batches) / tokens,
            peak_bytes=peak,
            compile_seconds=self.warm - self.began,
            profile=profile,
            floor_bytes=_least_passes(module) * size * self.dim * self.number_bytes // parts(),
            sent_bytes=round(sum_of_all(torch.tensor(sent.sequences, device=device)).item()),
            least_bytes=least_of_a_step(module.model, shares),
        )


def _say(trainer: L.Trainer, what: str, speed: float) -> None:
    """On stderr as soon as it is known: profile and evaluation may take a minute more."""
    if trainer.is_global_zero:
        print(f"  {what} {speed / 1e6:.2f}M tokens/s", file=sys.stderr, flush=True)


def _least_passes(module: TrainingModule) -> int:
    """Times that a step reads or writes an activation at least, over all blocks."""
    return sum(getattr(part, "least_passes", 0) for part in module.model.modules())


def _positions(batch: Batch) -> int:
    """Tokens of a batch, padding among them; of both documents of a pair."""
    return batch.lengths.numel() * batch.values.shape[batch.lengths.ndim]


def _seconds(
    step: Callable[[Batch], object], batches: Sequence[Batch], device: torch.device
) -> float:
    """Of the steps of ``batches``, after three that warm up."""
    for batch in batches[:3]:
        step(batch)
    began = now(device)
    for batch in batches:
        step(batch)
    return now(device) - began
