"""Sums of exponentials against the formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from chela.kernels.exponentials import exponential_sums, naive
from tests.kernels.comparison import DEVICE, assert_close, assert_same, narrowed


def draw(directions: int, dim: int, n: int) -> list[Tensor]:
    torch.manual_seed(0)
    rate = -torch.rand(dim, n, device=DEVICE) * 0.2
    angle = 10 * torch.rand(dim, n, device=DEVICE)  # more than a turn per tap, too
    return [rate, angle, *torch.randn(2, directions, dim, n, device=DEVICE)]


@pytest.mark.parametrize("implementation", ["torch", "triton"])
@pytest.mark.parametrize(
    ("directions", "dim", "n", "length"),
    [(1, 2, 1, 1), (2, 3, 5, 63), (1, 2, 32, 130), (1, 1, 32, 1090)],
)
def test_taps_and_gradients_are_the_formulas(implementation, directions, dim, n, length) -> None:
    leaves, wide = narrowed(draw(directions, dim, n), torch.float32)
    ours = exponential_sums(*leaves, length, implementation=implementation)
    true = naive.exponential_sums(*wide, length)
    assert ours.shape == (directions, dim, length)
    if length == 1:  # nothing depends on rates and angles
        assert_close(ours, true, 1e-6)
        return
    assert_same([ours], [true], leaves, wide, 1e-5)


def test_a_slow_mode_is_as_exact_far_away() -> None:
    leaves, wide = narrowed(draw(1, 1, 2), torch.float32)
    with torch.no_grad():
        leaves[0].fill_(-1e-4)
        wide[0].copy_(leaves[0])
    ours = exponential_sums(*leaves, 3000, implementation="triton")[..., 2900:]
    assert_close(ours, naive.exponential_sums(*wide, 3000)[..., 2900:], 1e-6)


def test_what_does_not_fit_is_refused() -> None:
    rate, angle, real, imag = draw(1, 2, 3)
    with pytest.raises(ValueError, match=r"\(D, N\)"):
        exponential_sums(rate, angle[:1], real, imag, 4)
    with pytest.raises(ValueError, match="not those"):
        exponential_sums(rate, angle, real[:, :1], imag[:, :1], 4)
    with pytest.raises(ValueError, match="float32"):
        wide = (each.double() for each in (rate, angle, real, imag))
        exponential_sums(*wide, 4, implementation="triton")
