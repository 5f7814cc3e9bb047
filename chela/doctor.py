"""Is this machine, this data, this pair of task and model in order? One finding per line."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chela.config.schema import RunConfig
from chela.errors import ChelaError
from chela.kernels import linear_attention, long_conv, short_conv
from chela.kernels.choice import Implementation, choose
from chela.objectives import objective_of
from chela.records.environment import versions
from chela.track.wandb_run import wandb_mode
from chela.training import build
from chela.training.data import DataModule
from chela.training.engine import Engine, resolve
from chela.training.memory import estimate
from tasks.base import Batch, Task
from tasks.errors import DataError
from tasks.storage.rows import NOTHING
from tasks.storage.store import META, load

# Twice what rounding the inputs alone costs; float32 with room for sums over a few hundred terms.
TOLERANCE = {torch.bfloat16: 5e-3, torch.float32: 1e-5}
SAMPLES, SECONDS = 4, 60.0  # of the overfitting: it tells in a minute whether anything learns
FEW = 32  # tokens of a sample, where the next one is asked everywhere
LEARNED = 0.1  # nats: far under any ln(classes)
FREE = 5 * 2**30  # bytes: the largest prepared task and some checkpoints


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis."""

    subject: str
    fine: bool
    text: str  # what was found, and what to do about it if it is not fine


def diagnose(config: RunConfig) -> Iterator[Finding]:
    """Look at everything a run of this configuration needs, the quick things first."""
    found = versions()
    names = ("python", "torch", "cuda", "triton", "lightning", "datasets", "wandb")
    yield Finding("versions", True, ", ".join(f"{name} {found[name]}" for name in names))
    try:
        engine = resolve(config)
    except ChelaError as error:
        yield Finding("device", False, str(error))
        return
    yield _device(engine)
    yield from _kernels(engine)
    yield _disk(Path(config.output_dir))
    mode = wandb_mode(config.logger)
    hint = "" if mode == "online" else "; `wandb login` or WANDB_API_KEY turns it on"
    yield Finding("W&B", True, f"{mode}{hint}")
    task = build.build_task(config)
    prepared = _data(task)
    yield prepared
    if prepared.fine:
        task.setup()
        yield _memory(config, task, engine)
        yield _overfit(config, task, engine)


def _device(engine: Engine) -> Finding:
    device, how = engine.device, engine.describe()
    if device.type == "cpu":
        text = f"CPU, {torch.get_num_threads()} threads, {how}; a GPU is some hundred times faster"
        return Finding("device", True, text)
    gpu = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    text = f"{gpu.name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, {how}"
    if free < total / 2:
        return Finding("device", False, f"{text}: another program uses it; see nvidia-smi")
    return Finding("device", True, text)


def _kernels(engine: Engine) -> Iterator[Finding]:
    """Each operation as ``kernels=auto`` runs it here, against itself in float64."""
    device = engine.device
    how = choose("auto", device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    q, k, v = random(2, 200, 2, 32), random(2, 200, 2, 32), random(2, 200, 2, 64)
    x, taps, kernel = random(2, 200, 48), random(48, 5), random(2, 48, 200) / 10
    operations: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], dict[str, Any]]] = {
        "linear_attention": (linear_attention.bidirectional, (q, k, v), {}),
        "linear_attention, causal": (linear_attention.causal, (q, k, v), {}),
        "short_conv": (short_conv.convolve, (x, taps), {"causal": False, "activation": "silu"}),
        "long_conv": (long_conv.convolve, (x, kernel.float()), {}),
    }
    for name, (function, inputs, choices) in operations.items():
        yield _kernel(name, how, function, inputs, choices, TOLERANCE[dtype])


def _kernel(
    name: str,
    how: Implementation,
    function: Callable[..., Any],
    inputs: tuple[Tensor, ...],
    choices: dict[str, Any],
    tolerance: float,
) -> Finding:
    try:
        found = _first(function(*inputs, **choices, implementation=how)).double()
    except Exception as error:  # whatever a compiler may raise
        text = f"{how} fails: {type(error).__name__}: {error}\n  try: kernels=torch"
        return Finding(name, False, text)
    exact = _first(function(*(each.double() for each in inputs), **choices))
    distance = ((found - exact).norm() / exact.norm()).item()
    text = f"{how}, error against float64 {distance:.1e} (at most {tolerance:.0e})"
    fine = distance <= tolerance
    return Finding(name, fine, text if fine else f"{text}\n  try: kernels=torch, and report it")


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _disk(folder: Path) -> Finding:
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    text = f"{free / 2**30:.0f} GiB free for {folder}"
    if free < FREE:
        return Finding("disk", False, f"{text}\n  try: output_dir=<a folder with more room>")
    return Finding("disk", True, text)


def _data(task: Task) -> Finding:
    try:
        folder = task.folder
        if not (folder / META).exists():
            text = "not prepared; run chela prepare with the same arguments, or train"
            return Finding("data", False, text)
        return Finding("data", True, load(folder).meta.describe())
    except DataError as error:
        return Finding("data", False, str(error))


def _memory(config: RunConfig, task: Task, engine: Engine) -> Finding:
    model = build.build_model(config.model, task.spec, engine.kernels, engine.device)
    found = estimate(model.to(engine.device), task, config.trainer, engine)
    return Finding("memory", found.fits, str(found))


def _overfit(config: RunConfig, task: Task, engine: Engine) -> Finding:
    """A model that cannot learn four samples by heart will not learn a task."""
    sizes = replace(config.trainer, batch_size=SAMPLES, length_window=1, num_workers=0)
    data = DataModule(task, sizes, engine, config.seed, -(-len(task.samples("train")) // SAMPLES))
    batch = with_two_targets(data.train_dataloader())
    if batch is None:
        text = f"the training samples of {task.name} are all of one class"
        return Finding("overfit", False, f"{text}\n  try: look at the task's labels")
    if task.causal:  # whole windows of a text are too much to be learnt by heart
        values, targets = batch.values[:, :FEW], batch.targets[:, :FEW]
        batch = batch._replace(values=values, targets=targets, lengths=batch.lengths.clamp(max=FEW))
    batch = Batch(*(each.to(engine.device) for each in batch))
    torch.manual_seed(config.seed)
    model = build.build_model(config.model, task.spec, engine.kernels, engine.device)
    model.to(engine.device)
    objective = objective_of(task.spec, task.metric)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    began, steps, loss = time.monotonic(), 0, float("inf")
    while loss > LEARNED and time.monotonic() - began < SECONDS:
        value = objective.loss(*objective.ask(model, batch.values, batch.lengths, batch.targets))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        steps, loss = steps + 1, value.item()
    text = f"{config.model.name} on {SAMPLES} samples of {task.name}: loss {loss:.3f} after {steps}"
    if loss > LEARNED:
        remedy = "try: more time on a faster machine, or look at the model's keys"
        return Finding("overfit", False, f"{text} steps, not under {LEARNED}\n  {remedy}")
    return Finding("overfit", True, f"{text} steps")


def with_two_targets(batches: Iterable[Batch]) -> Batch | None:
    """The first batch with two targets or more: one alone a model learns without looking.

    Returns:
        None if there is none.
    """
    asked = ((batch, batch.targets[batch.targets != NOTHING]) for batch in batches)
    return next((batch for batch, targets in asked if len(targets.unique()) > 1), None)
