"""Is this machine, this data, this pair of task and model in order? One finding per line."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chela.config.schema import RunConfig
from chela.errors import ChelaError
from chela.kernels import linear_attention, long_conv, short_conv
from chela.kernels.choice import Implementation, choose
from chela.model import Model
from chela.objectives import objective_of
from chela.records.environment import versions
from chela.track.wandb_run import wandb_mode
from chela.training import build
from chela.training.data import DataModule
from chela.training.engine import Engine, resolve
from chela.training.memory import estimate
from chela.training.muon import orthogonalize
from tasks.base import Batch, Task
from tasks.errors import DataError
from tasks.storage.rows import NOTHING
from tasks.storage.store import META

# Twice what rounding the inputs alone costs; float32 with room for sums over a few hundred terms.
TOLERANCE = {torch.bfloat16: 5e-3, torch.float32: 1e-5}
SAMPLES, SECONDS = 4, 60.0  # of the overfitting: it tells in a minute whether anything learns
FEW = 32  # tokens of a sample, where the next one is asked everywhere
LEARNED = 0.1  # nats: far under any ln(classes)
AGAIN = {"cuda": 2.0, "cpu": 0.2}  # seconds of computing the same: a faulty GPU shows in the first
FREE = 5 * 2**30  # bytes: the largest prepared task and some checkpoints


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis."""

    subject: str
    fine: bool
    text: str  # what was found, and what to do about it if it is not fine


def diagnose(
    config: RunConfig, begins: Callable[[str], object] = id, overfits: bool = False
) -> Iterator[Finding]:
    """Look at everything a run of this configuration needs, the quick things first.

    Args:
        config: of the run.
        begins: told the subject of each check before the check runs.
        overfits: whether the model is to learn a few samples by heart, which takes longest.
    """

    def look(subject: str, check: Callable[..., tuple[bool, str]], *of: Any) -> Finding:
        begins(subject)
        return Finding(subject, *check(*of))

    yield look("versions", _versions)
    try:
        engine = resolve(config)
    except ChelaError as error:
        yield look("device", lambda text: (False, text), str(error))
        return
    yield look("device", _device, engine)
    yield look("same bits", _same_bits, engine.device)
    for name, operation in _operations(engine).items():
        yield look(name, operation)
    yield look("disk", _disk, Path(config.output_dir))
    yield look("W&B", _wandb, config)
    task = build.build_task(config)
    yield (prepared := look("data", _data, task))
    if not prepared.fine:
        return
    model = cache(partial(build.build_fitting, config, task.spec, engine))
    yield (fitting := look("model", _model, config, model))
    if fitting.fine:
        yield look("memory", _memory, config, task, engine, model())
        del model  # it would take its room beside the one that learns
        if overfits:
            yield look("overfit", _overfit, config, task, engine)


def _versions() -> tuple[bool, str]:
    found = versions()
    names = ("python", "torch", "cuda", "triton", "lightning", "datasets", "wandb")
    return True, ", ".join(f"{name} {found[name]}" for name in names)


def _wandb(config: RunConfig) -> tuple[bool, str]:
    mode = wandb_mode(config.logger)
    return True, mode if mode == "online" else f"{mode}; `wandb login` or WANDB_API_KEY turns it on"


def _device(engine: Engine) -> tuple[bool, str]:
    device, how = engine.device, engine.describe()
    if device.type == "cpu":
        count = torch.get_num_threads()
        threads = f"{count} thread{'s' * (count > 1)}"
        return True, f"CPU, {threads}, {how}; a GPU is some hundred times faster"
    gpu = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    text = f"{gpu.name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, {how}"
    if free < total / 2:
        return False, f"{text}: another program uses it; see nvidia-smi"
    return True, text


def _same_bits(device: torch.device) -> tuple[bool, str]:
    """Whether the device computes the same again and again: fifteen products, each of the last."""
    generator = torch.Generator().manual_seed(0)
    shape = (32, 320, 640) if device.type == "cuda" else (4, 128, 256)  # fill a GPU, as Image does
    matrices = torch.randn(shape, generator=generator).to(device)
    first, end = orthogonalize(matrices), time.monotonic() + AGAIN[device.type]
    times, others = 0, 0
    while times < 2 or time.monotonic() < end:  # however slow it is
        others += int((orthogonalize(matrices) != first).any())
        times += 1
    text = f"{times} times the same products, {others} with other results"
    if others:
        text += "\n  try: another GPU; let no other program use it, or all be inside of MPS"
    return not others, text


def _operations(engine: Engine) -> dict[str, Callable[[], tuple[bool, str]]]:
    """Each operation as ``kernels=auto`` runs it here, against itself in float64."""
    device = engine.device
    how = choose("auto", device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    q, k, v = random(2, 200, 2, 32), random(2, 200, 2, 32), random(2, 200, 2, 64)
    x, taps, kernel = random(2, 200, 48), random(48, 5), random(2, 48, 200) / 10
    decay = -torch.rand(2, 200, 2, generator=generator).to(device)
    check = partial(_operation, how, TOLERANCE[dtype])
    silu = partial(short_conv.convolve, causal=False, activation="silu")
    return {
        "linear_attention": partial(check, linear_attention.bidirectional, q, k, v),
        "linear_attention, causal": partial(check, linear_attention.causal, q, k, v),
        "linear_attention, decay": partial(check, _forgetting, q[:, :, :1], k[:, :, :1], v, decay),
        "short_conv": partial(check, silu, x, taps),
        "long_conv": partial(check, long_conv.convolve, x, kernel.float()),
    }


def _forgetting(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, implementation: Implementation = "torch"
) -> Tensor:
    """``linear_attention.causal``, whose decay has a name and no place."""
    return linear_attention.causal(q, k, v, log_decay=log_decay, implementation=implementation)[0]


def _operation(
    how: Implementation, tolerance: float, function: Callable[..., Any], *inputs: Tensor
) -> tuple[bool, str]:
    try:
        found = _first(function(*inputs, implementation=how)).double()
    except Exception as error:  # whatever a compiler may raise
        return False, f"{how} fails: {type(error).__name__}: {error}\n  try: kernels=torch"
    exact = _first(function(*(each.double() for each in inputs)))
    distance = ((found - exact).norm() / exact.norm()).item()
    text = f"{how}, {distance:.1e} from float64 (at most {tolerance:.0e})"
    fine = distance <= tolerance
    return fine, text if fine else f"{text}\n  try: kernels=torch, and report it"


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _disk(folder: Path) -> tuple[bool, str]:
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    text = f"{free / 2**30:.0f} GiB free for {folder}"
    if free < FREE:
        return False, f"{text}\n  try: output_dir=<a folder with more room>"
    return True, text


def _data(task: Task) -> tuple[bool, str]:
    try:
        folder = task.folder
        if not (folder / META).exists():
            return False, "not prepared; run chela prepare with the same arguments, or train"
        task.setup()
        for split in ("train", task.selecting, "test"):
            task.samples(split)  # a text may be shorter than a window
        return True, task.meta.describe()
    except DataError as error:
        return False, str(error)


def _model(config: RunConfig, model: Callable[[], Model]) -> tuple[bool, str]:
    try:
        count = sum(each.numel() for each in model().parameters())
    except ChelaError as error:
        return False, str(error)
    return True, f"{config.model.name}, {count:,} parameters, fits the task, trainer and optimizer"


def _memory(config: RunConfig, task: Task, engine: Engine, model: Model) -> tuple[bool, str]:
    found = estimate(model.to(engine.device), task, config, engine)
    return found.fits, str(found)


def _overfit(config: RunConfig, task: Task, engine: Engine) -> tuple[bool, str]:
    """A model that cannot learn four samples by heart will not learn a task."""
    sizes = replace(config.trainer, batch_size=SAMPLES, length_window=1, num_workers=0)
    data = DataModule(task, sizes, engine, config.seed, -(-len(task.samples("train")) // SAMPLES))
    batch = with_two_targets(data.train_dataloader())
    if batch is None:
        text = f"the training samples of {task.name} are all of one class"
        return False, f"{text}\n  try: look at the task's labels"
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
        return False, f"{text} steps, not under {LEARNED}\n  {remedy}"
    return True, f"{text} steps"


def with_two_targets(batches: Iterable[Batch]) -> Batch | None:
    """The first batch with two targets or more: one alone a model learns without looking.

    Returns:
        None if there is none.
    """
    asked = ((batch, batch.targets[batch.targets != NOTHING]) for batch in batches)
    return next((batch for batch, targets in asked if len(targets.unique()) > 1), None)
