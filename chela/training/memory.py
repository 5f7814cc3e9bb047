"""What a batch will need of memory, told before the first step by one sample and by two.

Activations grow in proportion to the samples that are computed at once; weights, gradients and
long kernels do not. Two small batches of the longest sample tell the two apart. Every tensor that
is alive is counted, so that scores that are made and dropped again count as well. What the
optimizer needs, in a step and from then on, its own step tells, of tensors without content.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from chela.config.schema import RunConfig
from chela.config.settings import OptimizerConfig
from chela.layers.processes import alone
from chela.objectives import objective_of
from chela.training.engine import Engine
from chela.training.optim import build_optimizer
from chela.training.room import free_bytes
from tasks.base import Batch, Task
from tasks.samples import Samples

GIB = 2**30
PLENTY = 0.1  # of what is free: a run that needs less is not measured any closer
SPARED = 0.8  # of what is free: as much a suggested batch may take


@dataclass(frozen=True)
class Need:
    """Bytes of one kind of batch: ``fixed + each * samples``, and ``least`` at some other time."""

    key: str  # that says how many samples are computed at once
    samples: int
    fixed: float
    each: float
    devices: int = 1  # over which the key's number is split
    least: float = 0

    @property
    def bytes(self) -> float:
        """Of a whole batch."""
        return max(self.fixed + self.each * self.samples, self.least)

    def fitting(self, room: float) -> int:
        """How many samples at once are sure to fit, in powers of two; 0: not even one."""
        most = (room - self.fixed) / max(self.each, 1)
        if most < 1 or room < self.least:
            return 0
        return min(1 << int(most).bit_length() - 1, self.samples)


@dataclass(frozen=True)
class Estimate:
    """What a run will need beyond what it holds before its first step, and what there is."""

    needs: tuple[Need, ...]  # of training, of evaluation
    length: int  # of the longest sample
    free: float | None  # bytes; None: not known on this system
    processes: int = 1  # of the run, that share the memory

    @property
    def largest(self) -> Need:
        """Of the kind of batch that needs most."""
        return max(self.needs, key=lambda need: need.bytes)

    @property
    def fits(self) -> bool:
        """Whether it is not known to be too much."""
        return self.free is None or self.largest.bytes * self.processes <= self.free

    def __str__(self) -> str:
        need, free = self.largest, self.free
        total = need.bytes * self.processes
        text = (
            f"about {_size(total)} of memory for {need.samples} samples of length "
            f"{self.length:,} at once ({need.key})"
        )
        if free is None:
            return text
        text += f", {_size(free)} free"
        if self.fits:
            return text
        room = SPARED * free / self.processes
        large = [each for each in self.needs if each.bytes * self.processes > free]
        sizes = {each.key: each.fitting(room) * each.devices for each in large}
        if 0 in sizes.values():
            return f"{text}.\n  try: a smaller model; not even one sample at once fits"
        return f"{text}.\n  try: {' '.join(f'{key}={size}' for key, size in sizes.items())}"


def estimate(model: nn.Module, task: Task, run: RunConfig, engine: Engine) -> Estimate:
    """Compute one and two samples, forward and backward, and draw the line through both.

    The weights, BatchNorm's averages and the random numbers are afterwards what they were.

    Args:
        model: on the engine's device.
        task: set up.
        run: how many samples are computed at once, and by which optimizer the model learns.
        engine: where, and in which precision.
    """
    device, config = engine.device, run.trainer
    free = free_bytes(device)
    state, step = optimizer_bytes(model, run.optimizer)
    shared = config.devices if device.type == "cpu" else 1

    def line(key: str, count: int, data: Samples, train: bool, split: int = 1) -> Need:
        fixed, least = (state, step) if train else (0, 0)
        reader, longest = data.on_disk(), int(data.lengths.argmax())
        peaks = []
        for size in (1, 2):
            whole = Batch(*(each.to(device) for each in reader.__getitems__([longest] * size)))
            some = _share(whole, config.sequence_devices)
            compute = partial(_compute, model, some, task, engine.dtype, train)
            peak = _peak(compute, device, free)
            if peak is None:  # not even this fits
                return Need(key, count, fixed, 2 * (free or 0), split, least)
            if free is not None and fixed + peak * count * shared <= PLENTY * free:
                return Need(key, count, fixed, peak, split, least)
            peaks.append(peak)
        each = max(peaks[1] - peaks[0], 0)
        return Need(key, count, fixed + peaks[0] - each, each, split, least)

    batch = config.batch_size // config.replicas
    at_once = min(config.micro_batch_size or batch, batch)
    # the split that selects may be shorter than the one that is tested, in either way
    trained, *others = (task.samples(name) for name in ("train", task.selecting, "test"))
    evaluated = max(others, key=lambda data: data.lengths.max())
    rows = max(map(len, others))
    with _untouched(model, device), alone():
        model.train()
        key = "trainer.micro_batch_size" if config.processes == 1 else "trainer.batch_size"
        training = line(key, at_once, trained, train=True, split=config.replicas)
        model.eval()
        at_once = min(config.eval_batch_size, rows)
        evaluation = line("trainer.eval_batch_size", at_once, evaluated, train=False)
    length = max(int(data.lengths.max()) for data in (trained, evaluated))
    length = length // task.encoding.channels // task.encoding.documents
    return Estimate((training, evaluation), length, free, shared)


def optimizer_bytes(model: nn.Module, config: OptimizerConfig) -> tuple[int, int]:
    """What an optimizer takes beside the weights.

    Returns:
        The bytes that it holds from its first step on, and the most that there are in a step, with
        these and the gradients. Muon's iteration is taken for one in float32.
    """
    optimizer = build_optimizer(model, config)
    gradients, alive = [], _Alive(None)
    with FakeTensorMode():
        for group in optimizer.param_groups:
            group["params"] = [torch.empty(x.shape, dtype=x.dtype) for x in group["params"]]
            for weight in group["params"]:
                weight.grad = torch.empty_like(weight)
                gradients.append(weight.nbytes)
        with alive:
            for _ in range(2):  # the first one begins its state, some of it only at its end
                optimizer.step()
    return alive.now, sum(gradients) + alive.peak


def _share(batch: Batch, devices: int) -> Batch:
    """As long a piece of each sequence as one of the devices that hold it together has."""
    values, lengths, targets, index = batch
    axis = lengths.ndim  # of the positions
    length = -(-values.shape[axis] // devices)
    if targets.ndim > 1:
        targets = targets[:, :length]
    return Batch(values.narrow(axis, 0, length), lengths.clamp(max=length), targets, index)


def _compute(model: nn.Module, batch: Batch, task: Task, dtype: torch.dtype, train: bool) -> None:
    device = batch.values.device
    objective = objective_of(task.spec, task.metric)
    narrow = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    with torch.set_grad_enabled(train), torch.compiler.set_stance("force_eager"):
        with narrow:
            lengths = batch.lengths if task.is_padded else None
            answers = objective.ask(model, batch.values, lengths, batch.targets)
        if train:
            objective.loss(*answers).backward()


@contextmanager
def _untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    training = model.training
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            model.zero_grad(set_to_none=True)
            model.train(training)
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])


def _peak(compute: Callable[[], None], device: torch.device, limit: float | None) -> int | None:
    """The most bytes that were alive at once, beyond those before; None: more than ``limit``."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            compute()
        except torch.cuda.OutOfMemoryError:
            return None
        return torch.cuda.max_memory_allocated(device) - before
    alive = _Alive(limit)
    try:
        with alive:
            compute()
    except (_TooMuch, MemoryError):
        return None
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # PyTorch's on a CPU
            return None
        raise
    return alive.peak


class _TooMuch(Exception):
    """More is alive than there is room for."""


class _Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside."""

    def __init__(self, limit: float | None) -> None:
        super().__init__()
        self.limit, self.now, self.peak = limit, 0, 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for each in tree_leaves((args, kwargs)):
            if isinstance(each, Tensor):  # what was there before is not counted
                self._see(each, 0)
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self._see(each, each.untyped_storage().nbytes())
        self.peak = max(self.peak, self.now)
        if self.limit is not None and self.now > self.limit:
            raise _TooMuch
        return result

    def _see(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.known:
            self.known.add(key)
            self.now += size
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= 0.1 * GIB else f"{count / 2**20:.0f} MiB"
