"""How a kernel is measured: first its error, then its time, then how far that is from the floor.

A case is one implementation of one operation at one shape. Its output and every gradient are held
against float64; only if they agree is forward plus backward timed, as the median over replays of a
CUDA graph (on a CPU: over calls). The floor is the time to move the fewest bytes the operation
needs at the speed of a large copy on the same device; frac = floor / measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from matplotlib.figure import Figure
from torch import Tensor

from chela.errors import RunError

MAX_ERROR = 5e-3  # twice what rounding the inputs to bfloat16 costs by itself
REPLAYS = 20  # enough for a median; a replay takes milliseconds


@dataclass(frozen=True)
class Shape:
    """Sizes of one case."""

    batch: int
    length: int
    channels: int
    head: int = 0  # channels per head; 0 where an operation has no heads

    def __str__(self) -> str:
        sizes = f"{self.batch}x{self.length}x{self.channels}"
        return f"{sizes}/{self.head}" if self.head else sizes

    @property
    def pass_bytes(self) -> int:
        """Bytes of one bfloat16 activation (B, L, D)."""
        return 2 * self.batch * self.length * self.channels


@dataclass(frozen=True)
class Case:
    """One implementation of one operation at one shape.

    Args:
        operation: what is computed.
        implementation: who computes it.
        shape: the sizes.
        inputs: makes the leaves for a shape, on the device, drawn anew at each call.
        call: the leaves to the output or outputs.
        reference: the same in plain PyTorch; it is called with float64 leaves.
        floor_bytes: the fewest bytes forward and backward move at a shape.
        max_error: above it no speed is given.
    """

    operation: str
    implementation: str
    shape: Shape
    inputs: Callable[[Shape], list[Tensor]]
    call: Callable[..., Tensor | tuple[Tensor, ...]]
    reference: Callable[..., Tensor | tuple[Tensor, ...]]
    floor_bytes: Callable[[Shape], int]
    max_error: float = MAX_ERROR

    @property
    def label(self) -> str:
        """The first columns of its line in the table."""
        return f"{self.operation:25} {self.implementation:15} {self.shape!s:18}"


@dataclass(frozen=True)
class Result:
    """What was measured of a case; ``seconds`` is None where the error forbids a speed, or where
    only the error was asked for."""

    case: Case
    error: float
    seconds: float | None
    floor: float

    def row(self) -> str:
        """One line of the table."""
        start = f"{self.case.label} {self.error:8.1e}"
        if not self.error <= self.case.max_error:
            return f"{start}  wrong: no speed (error above {self.case.max_error})"
        if self.seconds is None:
            return start
        times = f"{self.seconds * 1e3:9.3f} {self.floor * 1e3:9.3f}"
        return f"{start} {times} {self.floor / self.seconds:6.2f}"


HEADER = (
    f"{'operation':25} {'implementation':15} {'shape':18} {'error':>8} "
    f"{'ms':>9} {'floor ms':>9} {'frac':>6}"
)


def measure(case: Case, bandwidth: float, timed: bool = True) -> Result:
    """Check and, if it is right, time forward plus backward of ``case``.

    Args:
        case: what to measure.
        bandwidth: of memory, in bytes per second, for the floor.
        timed: False for the error alone.
    """
    error = relative_error(case)
    seconds = forward_backward_seconds(case) if timed and error <= case.max_error else None
    return Result(case, error, seconds, case.floor_bytes(case.shape) / bandwidth)


def relative_error(case: Case) -> float:
    """The largest ||x - ref|| / ||ref|| over output and gradients, on one sequence of full length.

    NaN counts as infinite.
    """
    leaves = case.inputs(replace(case.shape, batch=1))
    wide = [x.detach().double().requires_grad_() for x in leaves]
    out, reference = _outputs(case.call(*leaves)), _outputs(case.reference(*wide))
    upstream = [torch.randn_like(y) for y in out]
    ours = [*out, *torch.autograd.grad(out, leaves, upstream)]
    true = [*reference, *torch.autograd.grad(reference, wide, [g.double() for g in upstream])]
    errors = [
        ((a.double() - b).norm() / b.norm()).nan_to_num(nan=float("inf")).item()
        for a, b in zip(ours, true, strict=True)
    ]
    return max(errors)


def forward_backward_seconds(case: Case) -> float:
    """The median time of forward plus backward, on fresh random inputs and upstream gradient."""
    leaves = case.inputs(case.shape)
    upstream = [torch.randn_like(y) for y in _outputs(case.call(*leaves))]

    def step() -> Sequence[Tensor]:
        return torch.autograd.grad(_outputs(case.call(*leaves)), leaves, upstream)

    return median(_graph_times(step) if upstream[0].is_cuda else _wall_times(step))


def _outputs(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def now(device: torch.device) -> float:
    """A clock in seconds, when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of a large pass over memory by a kernel on ``device``.

    A kernel and not ``copy_``, which a CUDA graph hands to the copy engine: that is slower.
    """
    size = 1 << 30 if device.type == "cuda" else 1 << 26  # far beyond any cache
    source = torch.randn(size // 2, device=device).bfloat16()
    target = torch.empty_like(source)

    def step() -> Sequence[Tensor]:
        return (torch.neg(source, out=target),)

    return 2 * size / median(_graph_times(step) if source.is_cuda else _wall_times(step))


def _graph_times(step: Callable[[], Sequence[Tensor]]) -> list[float]:
    """Seconds of each replay; memory, compilers and caches are warm by then."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graph.replay()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(REPLAYS)]
    for start, end in events:
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in events]


def _wall_times(step: Callable[[], Sequence[Tensor]]) -> list[float]:
    step()
    times = []
    for _ in range(3):  # a CPU's calls are long
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def draw(results: Sequence[Result], file: Path) -> None:
    """Time against length on logarithmic axes: a panel per operation, a line per implementation.

    Args:
        results: of any shapes; those without a speed are left out.
        file: what to write; its suffix says the format.

    Raises:
        RunError: nothing has a speed.
    """
    results = [r for r in results if r.seconds is not None]
    if not results:
        raise RunError(
            "nothing to draw: no case was right and fitted into memory.\n  try: another --operation"
        )
    panels = sorted({(r.case.operation, r.case.shape.head) for r in results})
    columns = min(3, len(panels))  # as many as a page shows at a readable size
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (operation, head) in zip(axes.flat, panels, strict=False):
        shown = [r for r in results if (r.case.operation, r.case.shape.head) == (operation, head)]
        for name in sorted({r.case.implementation for r in shown}):
            line = sorted(
                (r.case.shape.length, r.seconds) for r in shown if r.case.implementation == name
            )
            axis.loglog(*zip(*line, strict=True), marker="o", label=name)
        floors = sorted({(r.case.shape.length, r.floor) for r in shown})
        axis.loglog(*zip(*floors, strict=True), "--", color="gray", label="floor: memory traffic")
        title = f"{operation}, heads of {head}" if head else operation
        axis.set(title=title, xlabel="length (tokens)", ylabel="forward + backward (s)")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(file, dpi=150)
