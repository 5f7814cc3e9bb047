"""How an operation is held against its specification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest
import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
gpu_only = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA GPU; the interpreter is too slow"),
]


def on_a_gpu(test: Callable) -> Callable:
    """For sizes that are too large for the interpreter."""
    for mark in gpu_only:
        test = mark(test)
    return test


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """||actual - expected|| <= tolerance ||expected||, and both of one shape."""
    fault = _fault(actual, expected, tolerance)
    assert fault is None, fault


def assert_same(
    ours: Sequence[Tensor],
    reference: Sequence[Tensor],
    leaves: Sequence[Tensor],
    reference_leaves: Sequence[Tensor],
    tolerance: float,
    names: Iterable[str] | None = None,
) -> None:
    """The outputs, and the gradient of each leaf through all outputs together.

    The message has all that are wrong: one that is known hides no other.

    Args:
        names: the leaves', for the message; without them their places.
    """
    upstream = [torch.randn_like(out) for out in ours]
    wide = [u.to(r.dtype) for u, r in zip(upstream, reference, strict=True)]
    gradients = torch.autograd.grad(ours, leaves, upstream)
    expected = torch.autograd.grad(reference, reference_leaves, wide)
    found = [f"output {place}" for place in range(len(ours))]
    found += [f"gradient of {name}" for name in names or range(len(leaves))]
    pairs = zip(found, (*ours, *gradients), (*reference, *expected), strict=True)
    faults = {name: _fault(mine, true, tolerance) for name, mine, true in pairs}
    wrong = {name: fault for name, fault in faults.items() if fault is not None}
    assert not wrong, wrong


def _fault(actual: Tensor, expected: Tensor, tolerance: float) -> str | None:
    """Why the two are not close; None where they are."""
    if actual.shape != expected.shape:
        return f"{tuple(actual.shape)} instead of {tuple(expected.shape)}"
    error = (actual.detach().double() - expected.detach()).norm()
    if error <= tolerance * expected.norm():
        return None
    return f"relative error {error / expected.norm():.1e}"


def narrowed(leaves: Sequence[Tensor], dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """The leaves rounded to ``dtype``, and the same rounded values in float64."""
    narrow = [t.detach().to(dtype).requires_grad_() for t in leaves]
    return narrow, [t.detach().double().requires_grad_() for t in narrow]


def assert_replays(run: Callable[[], list[Tensor]], leaves: Sequence[Tensor]) -> None:
    """A CUDA graph of ``run``, replayed on other values of the first leaf, gives what it gives.

    Autograd remembers the stream of a first backward pass: that must not be the default one.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()  # compiles
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = run()
    with torch.no_grad():
        leaves[0].normal_()
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(recorded, run(), strict=True))
