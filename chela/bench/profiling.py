"""Where a step goes: its kernels by name and time, and how many each stage of it launches.

On a GPU kernels are those of a graph's replays; on a CPU they are PyTorch's operations, whose
number does not depend on the sizes of a batch either.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from chela.training.module import STAGES

STEPS = 3  # that are profiled, and divided by
BESIDE = "beside"  # what no stage of a step holds
# What the CUDA runtime is asked for when something is to run on the GPU.
LAUNCH = re.compile(r"^cu(da)?(LaunchKernel|LaunchCooperative|Memcpy|Memset)")
# Operations that compute nothing.
NAMES = re.compile(r"^(profiler\.|aten\.(detach|empty|lift_fresh|_local_scalar|is_))")

# Which kernels are whose, by their names in a profile; the first that fits counts.
PARTS = {
    "long convolution": r"mix_(blocks|outer|middle|taps)|multiply_(freq|spectra)|align_units|fft"
    r"|^(exponential|wavelet)_|^(fold|arrange|collect|unfold)$",
    "short convolution": r"^short_conv|conv_depthwise|sum_parts|aten\.conv",
    "attention": r"bidirectional|causal|^decayed|_states?$|running_sums|epilogue|flash|fmha",
    "token-wise kernels": r"^token_|^norm_linear|^query_key",
    "matrix products": r"nvjet|gemm|cutlass|cublas|aten\.\w*mm",
    "optimizer": r"multi_tensor|lpnorm|aten\._f(oreach|used)",
    "compiled element-wise": r"^triton_",
    "between devices": r"^nccl|allreduce|chela\.(by_|with_halo|halo_|sum_|of_all)",
    "other": r"",
}


@dataclass(frozen=True)
class Kernel:
    """What runs under one name in a step."""

    name: str
    calls: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """One step: its kernels, the longest first, and the launches of each of its stages."""

    kernels: tuple[Kernel, ...]
    stages: dict[str, int]

    @property
    def launches(self) -> int:
        """Of a step."""
        return round(sum(kernel.calls for kernel in self.kernels))

    @cached_property
    def seconds(self) -> float:
        """Of all kernels of a step."""
        return sum(kernel.seconds for kernel in self.kernels)

    def parts(self) -> dict[str, float]:
        """Seconds in each of ``PARTS``, the most first."""
        found: dict[str, float] = defaultdict(float)
        for kernel in self.kernels:
            part = next(name for name, pattern in PARTS.items() if re.search(pattern, kernel.name))
            found[part] += kernel.seconds
        return dict(sorted(found.items(), key=lambda part: -part[1]))

    def table(self, rows: int | None = None) -> str:
        """A line for each kernel: calls and milliseconds of a step, share, name."""
        lines = [f"{'calls':>7} {'ms':>9} {'share':>6}  kernel"]
        for kernel in self.kernels[:rows]:
            share = kernel.seconds / self.seconds
            line = f"{kernel.calls:7.1f} {kernel.seconds * 1e3:9.4f} {share:6.1%}  {kernel.name}"
            lines.append(line)
        return "\n".join(lines)


def profiled(
    step: Callable[[], object], whole_step: Callable[[], object], device: torch.device
) -> Profile:
    """Profile a training step.

    Args:
        step: as it is trained with; the replay of a graph where there is one.
        whole_step: the same without a graph, in which stages can be told apart.
        device: where it runs.
    """
    if device.type != "cuda":
        with Operations() as operations:
            for _ in range(STEPS):
                whole_step()
        return Profile(_kernels(operations.calls, operations.seconds), _of_one(operations.stages))
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
    averages = found.key_averages()
    calls = {each.key: each.count for each in averages if each.self_device_time_total}
    seconds = {each.key: each.self_device_time_total / 1e6 for each in averages}
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        whole_step()
        torch.cuda.synchronize()
    return Profile(_kernels(calls, seconds), _stages(found.events()))


def _kernels(calls: dict[str, int], seconds: dict[str, float]) -> tuple[Kernel, ...]:
    kernels = [Kernel(name, n / STEPS, seconds[name] / STEPS) for name, n in calls.items()]
    return tuple(sorted(kernels, key=lambda kernel: -kernel.seconds))


def _of_one(stages: Counter[str]) -> dict[str, int]:
    return {name: round(stages[name] / STEPS) for name in (*STAGES, BESIDE) if stages[name]}


def _stages(events: Any) -> dict[str, int]:
    """Launches in the time of each stage: backward's are made by a thread of its own."""
    times = {event.name: event.time_range for event in events if event.name in STAGES}
    found: Counter[str] = Counter()
    for event in events:
        if LAUNCH.match(event.name):
            start = event.time_range.start
            inside = (name for name, time in times.items() if time.start <= start <= time.end)
            found[next(inside, BESIDE)] += 1
    return {name: found[name] for name in (*STAGES, BESIDE) if found[name]}


class Operations(TorchDispatchMode):
    """Counts and times the operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self.stages: Counter[str] = Counter()
        self._stage = BESIDE

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if name.startswith("profiler._record_function_enter") and args[0] in STAGES:
            self._stage = args[0]
        elif name.startswith("profiler._record_function_exit"):
            self._stage = BESIDE
        began = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        if not func.is_view and not NAMES.match(name):
            short = name.removesuffix(".default")
            self.calls[short] += 1
            self.seconds[short] += time.perf_counter() - began
            self.stages[self._stage] += 1
        return result
