"""Sums of exponentials against the formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from chela.kernels.exponentials import exponential_sums, fused, naive
from tests.kernels.comparison import DEVICE, assert_close, assert_same, narrowed


def draw(directions: int, dim: int, n: int) -> list[Tensor]:
    torch.manual_seed(0)
    rate = -torch.rand(dim, n, device=DEVICE) * 0.2
    angle = 10 * torch.rand(dim, n, device=DEVICE)  # more than a turn per tap, too
    return [rate, angle, *torch.randn(2, directions, dim, n, device=DEVICE)]


@pytest.mark.parametrize("implementation", ["torch", "triton"])
@pytest.mark.parametrize(
    ("directions", "dim", "n", "length"),
    [
        (1, 2, 1, 1),
        (2, 3, 5, 63),
        (2, 1, 16, 70),
        (1, 2, 32, 130),
        (2, 1, 64, 300),
        (1, 1, 32, 1090),
        (1, 1, 2, 2100),  # beyond one program's share both ways
    ],
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


@pytest.mark.parametrize(
    ("programs", "tiles", "parts"), [(1, 64, (2, 2)), (3, 32, (3, 1)), (100, 16, (3, 1))]
)
def test_taps_are_the_formulas_however_they_are_shared_out(
    programs, tiles, parts, monkeypatch, uninitialised_memory_is_nan
) -> None:
    monkeypatch.setattr(fused, "PROGRAMS", programs)
    monkeypatch.setattr(fused, "STEPS", 2)
    assert (fused._tiles(1, 4130), fused._parts(1, 4130)) == (tiles, parts)
    leaves, wide = narrowed(draw(1, 1, 2), torch.float32)
    ours, again, third = (
        exponential_sums(*leaves, 4130, implementation="triton") for _ in range(3)
    )
    assert_same([ours], [naive.exponential_sums(*wide, 4130)], leaves, wide, 1e-5)
    first, second = (torch.autograd.grad(each.sum(), leaves) for each in (again, third))
    assert torch.equal(again, third)
    assert all(map(torch.equal, first, second))


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # by the interpreter
def test_an_angle_that_is_no_number_has_no_taps() -> None:
    rate, angle, real, imag = draw(1, 2, 3)
    angle[0, 1] = torch.nan
    taps = exponential_sums(rate, angle, real, imag, 70, implementation="triton")
    assert taps[:, 0].isnan().all()
    assert taps[:, 1].isfinite().all()


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
