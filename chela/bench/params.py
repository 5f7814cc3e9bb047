"""Parameters and FLOPs of every model on a task, and who breaks LRA's rule.

    chela params task=listops          a table; no data needed
    chela params task=all              of all six tasks
    chela params task=text model.depth=2   any key, of all models

LRA's rule (Tay et al. 2021): a model has at most 10 % more parameters than the reference, here
CHELA's recipe for the task. FLOPs are those of one forward pass of a training batch, all sequences
at the task's full length, per token: matrix products by ``torch.utils.flop_counter`` (2 per
multiply and add), a real FFT of n points as 2.5 n log2 n; elementwise work is not counted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from chela.bench.words import parser_of, refuse_model
from chela.config.choices import MODELS
from chela.config.schema import RunConfig, compose_run
from chela.training.build import build_model, build_task
from tasks.base import Task, TaskSpec
from tasks.errors import DataError
from tasks.spec import LRA

REFERENCE = "chela"
ALLOWANCE = 1.10  # times the reference's parameters


@dataclass(frozen=True)
class Size:
    """What a model costs on a task."""

    model: str
    parameters: int
    flops_per_token: float  # forward

    def ratio(self, reference: "Size") -> float:
        """Parameters relative to those of ``reference``."""
        return self.parameters / reference.parameters


def model_names() -> list[str]:
    """Every model of the configuration, the reference first."""
    return [REFERENCE, *(name for name in MODELS if name != REFERENCE)]


def run_config(model: str, arguments: Sequence[str]) -> RunConfig:
    """The checked configuration of ``model`` with its recipe and ``arguments`` on top."""
    return compose_run([f"model={model}", *arguments])


def spec_of(task: Task) -> tuple[TaskSpec, bool]:
    """What the task's samples look like, and whether a usual vocabulary had to be assumed.

    Raises:
        DataError: the data are not prepared, and nothing is known of them beforehand.
    """
    try:
        return task.spec, False
    except DataError:
        return task.outline, True  # ten symbols more or less are some thousand parameters


def size_of(config: RunConfig, spec: TaskSpec) -> Size:
    """Count the parameters and FLOPs of a model, without memory or time for either.

    Args:
        config: of the run; its batch size shares out what a batch needs once, such as a kernel.
        spec: what the task's samples look like.
    """
    # Tensors without content; attention as the two matrix products that can be counted.
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH):
        model = build_model(config.model, spec).eval().requires_grad_(False)
        documents = [spec.documents] if spec.documents > 1 else []
        shape = [config.trainer.batch_size, *documents, spec.max_length]
        if spec.vocab_size is not None:
            values = torch.empty(shape, dtype=torch.long)  # (B, L) or (B, 2, L)
        else:
            values = torch.empty([*shape, spec.input_dim])  # (B, L, C)
        counter = FlopCounterMode(display=False, custom_mapping=FFTS)
        with counter:
            model(values)
    parameters = sum(each.numel() for each in model.parameters())
    return Size(config.model.name, parameters, counter.get_total_flops() / math.prod(shape))


def real_fft(signal: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """FLOPs of real transforms along the last axis, forward or inverse: 2.5 n log2 n each."""
    points = max(signal[-1], out_shape[-1])  # the real side has n, the other n / 2 + 1
    return round(2.5 * points * math.log2(points) * math.prod(signal[:-1]))


FFTS = {torch.ops.aten._fft_r2c: real_fft, torch.ops.aten._fft_c2r: real_fft}


def table(sizes: Sequence[Size]) -> str:
    """A line per model; the first one is the reference."""
    lines = [f"{'model':20} {'parameters':>12} {'ratio':>6} {'MFLOPs/token':>13}"]
    for size in sizes:
        ratio = size.ratio(sizes[0])
        note = "  breaks LRA's rule: more than 10 % above the reference"
        lines.append(
            f"{size.model:20} {size.parameters:12,} {ratio:6.2f} {size.flops_per_token / 1e6:13.2f}"
            f"{note if ratio > ALLOWANCE else ''}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Print the table of the task, or of each."""
    _, overrides = parser_of("params", __doc__).parse_known_args(arguments)
    refuse_model(overrides, "without it: the table has all models")
    if "task=all" in overrides:
        for task in LRA:
            main([f"task={task}" if each == "task=all" else each for each in overrides])
        return
    configs = [run_config(name, overrides) for name in model_names()]
    spec, assumed = spec_of(build_task(configs[0]))
    note = f", {spec.vocab_size} symbols assumed (its data are not prepared)" if assumed else ""
    print(f"{spec.name}: up to {spec.max_length:,} tokens{note}")
    print(table([size_of(config, spec) for config in configs]), end="\n\n")
