"""The loss in chunks against its formula in float64, and how much of it is ever in memory."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from chela.kernels.token_loss import naive, token_loss

N, DIM, WORDS, NOTHING = 29, 6, 50, -100


def case(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(N, DIM), torch.randn(WORDS, DIM), torch.randn(WORDS)
    targets = torch.randint(0, WORDS, (N,))
    targets[torch.rand(N) < 0.3] = NOTHING
    return (*(each.to(dtype).requires_grad_() for each in (x, weight, bias)), targets)


@pytest.mark.parametrize("chunk", [1, 7 * WORDS, 10**6])
@pytest.mark.parametrize(
    ("dtype", "narrow", "tolerance"),
    [(torch.float64, None, 1e-12), (torch.float32, None, 1e-5), (torch.float32, "bf16", 3e-2)],
)
def test_losses_hits_and_gradients_are_those_of_the_formula(
    dtype: torch.dtype, narrow: str | None, tolerance: float, chunk: int
) -> None:
    exact, found = case(), case(dtype)
    upstream = torch.randn(N, dtype=torch.float64)
    losses, hits = naive.token_loss(*exact, NOTHING)
    (losses * upstream).sum().backward()
    products = None if narrow is None else torch.bfloat16
    ours, ours_hit = token_loss(*found, NOTHING, dtype=products, chunk=chunk)
    (ours * upstream.to(dtype)).sum().backward()
    assert ours.dtype == dtype
    assert (exact[3] == NOTHING).sum() > 3 and (ours[exact[3] == NOTHING] == 0).all()
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(ours.double(), losses, **close)
    if narrow is None:
        assert torch.equal(ours_hit.double(), hits)
    for one, other in zip(exact[:3], found[:3], strict=True):
        assert other.grad.dtype == dtype
        norm = (one.grad - other.grad.double()).norm() / one.grad.norm()
        assert norm < tolerance


@pytest.mark.parametrize(
    ("number", "shape", "said"),
    [
        (0, (1, N, DIM), r"x \(1, 29, 6\) and weight \(50, 6\) do not fit; give x as \(N, D\)"),
        (1, (WORDS, 1), r"x \(29, 6\) and weight \(50, 1\) do not fit; give x as \(N, D\)"),
        (2, (1,), r"bias is \(1,\); give \(V,\) = \(50,\)"),
        (3, (1,), r"targets are \(1,\); give \(N,\) = \(29,\)"),
        (3, (N, 1), r"targets are \(29, 1\); give \(N,\) = \(29,\)"),
    ],
)
def test_what_does_not_fit_or_would_be_broadcast_is_refused(
    number: int, shape: tuple[int, ...], said: str
) -> None:
    given = list(case())
    given[number] = torch.ones(shape, dtype=given[number].dtype)
    with pytest.raises(ValueError, match=said):
        token_loss(*given, NOTHING)


class _Alive(TorchDispatchMode):
    """The most bytes that results of ``least`` elements or more had at a time."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.bytes, self._refs = least, 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, torch.Tensor) and each.numel() >= self.least:
                self._refs.append(weakref.ref(each))
        alive = [each for ref in self._refs if (each := ref()) is not None]
        sizes = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in alive}
        self.bytes = max(self.bytes, sum(map(len, sizes.values())))
        return result


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 4), (torch.bfloat16, 6)])
def test_no_more_scores_than_a_chunk_are_ever_in_memory(dtype: torch.dtype, width: int) -> None:
    """Those of the products, and in float32."""
    x, weight, bias, targets = case(torch.float32)
    alive = _Alive(least=weight.numel() + 1)
    with alive:
        losses, _ = token_loss(x, weight, bias, targets, NOTHING, dtype=dtype, chunk=8 * WORDS)
        losses.sum().backward()
    assert alive.bytes == 8 * WORDS * width
    assert len(x) > 3 * 8  # chunks
