"""The state space against its recurrence, and its kernel against the Vandermonde sum."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from chela.mixers.s4d import S4DMixer
from chela.mixers.state_space import StateSpaceConfig, StateSpaceKernel, initial_frequencies
from chela.testing import DIM
from tests.model.baseline_variants import make_baseline


def states(kernel: StateSpaceKernel) -> tuple[torch.Tensor, torch.Tensor]:
    """A and dt as complex and real numbers, (D, N) and (D, 1)."""
    return -kernel.log_decay.exp() + 1j * kernel.frequency, kernel.log_dt.exp()


def discretised(kernel: StateSpaceKernel) -> tuple[torch.Tensor, torch.Tensor]:
    """The transition per step and the input weight, from their textbook formulas."""
    a, dt = states(kernel)
    if kernel.discretization == "zoh":
        return (dt * a).exp(), ((dt * a).exp() - 1) / a
    return (1 + dt * a / 2) / (1 - dt * a / 2), dt / (1 - dt * a / 2)


def recurrence(mixer: S4DMixer, x: torch.Tensor, direction: int) -> torch.Tensor:
    """One sequence (L, D) through h = step * h + weight * x, y = 2 Re sum C h."""
    step, weight = discretised(mixer.kernel)
    c = torch.view_as_complex(mixer.kernel.readout)[direction]
    h = torch.zeros_like(step)
    rows = []
    for token in x:
        h = step * h + weight * token[:, None]
        rows.append(2 * (c * h).sum(-1).real)
    return torch.stack(rows)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["s4d", "s4d-inv-bilinear"])
def test_the_mixer_is_its_recurrence(name, causal):
    mixer = make_baseline(name, causal)
    x = torch.randn(13, DIM, dtype=torch.float64)
    y = recurrence(mixer, x, 0) + mixer.skip * x
    if not causal:  # the other direction starts one token later: lag 0 belongs to the first
        backward = recurrence(mixer, x.flip(0), 1).flip(0)
        y = y + torch.cat([backward[1:], torch.zeros(1, DIM, dtype=torch.float64)])
    a, b = (F.gelu(y) @ mixer.out.weight.T + mixer.out.bias).chunk(2, dim=-1)
    torch.testing.assert_close(mixer(x[None])[0], a * torch.sigmoid(b))


@settings(max_examples=25)
@given(
    st.integers(1, 70),
    st.integers(0, 69),
    st.sampled_from(["lin", "inv"]),
    st.sampled_from(["zoh", "bilinear"]),
)
def test_the_kernel_is_the_vandermonde_sum(max_length, cut, init, discretization):
    config = StateSpaceConfig(state_dim=8, init=init, discretization=discretization)
    kernel = StateSpaceKernel(3, max_length, 2, config).double()
    length = max(1, max_length - cut)
    step, weight = discretised(kernel)
    powers = step[..., None] ** torch.arange(length)
    c = torch.view_as_complex(kernel.readout)
    expected = 2 * torch.einsum("kdn,dnl->kdl", c * weight, powers).real
    torch.testing.assert_close(kernel(length), expected)


def test_float32_keeps_the_long_kernel_close():
    """Path-X: 16,384 taps, the slowest and the fastest channel."""
    torch.manual_seed(0)
    kernel = StateSpaceKernel(16, 16384, 2, StateSpaceConfig())
    with torch.no_grad():
        kernel.log_dt.copy_(torch.linspace(math.log(1e-3), math.log(1e-1), 16)[:, None])
        narrow = kernel(16384)
        exact = kernel.double()(16384)
    assert (narrow - exact).norm() / exact.norm() < 1e-4


def test_a_tap_does_not_depend_on_the_length_asked_for():
    kernel = StateSpaceKernel(3, 100, 1, StateSpaceConfig())
    torch.testing.assert_close(kernel(37), kernel(100)[..., :37], rtol=1e-6, atol=1e-7)


def test_initial_values_are_those_of_the_paper():
    torch.manual_seed(0)
    kernel = StateSpaceKernel(500, 64, 2, StateSpaceConfig())
    a, dt = states(kernel)
    torch.testing.assert_close(a.real, torch.full((500, 32), -0.5))
    torch.testing.assert_close(a[0].imag, math.pi * torch.arange(32.0))
    assert dt.min() >= 1e-3
    assert dt.max() <= 1e-1
    assert abs(dt.log().mean() - math.log(1e-2)) < 0.2  # log-uniform: its middle is 1e-2
    c = torch.view_as_complex(kernel.readout)
    assert abs(c.abs().square().mean() - 1) < 0.05
    inverse = initial_frequencies("inv", 32)
    assert inverse[0] == pytest.approx(64 / math.pi * 63)
    assert inverse[1] == pytest.approx(64 / math.pi * (64 / 3 - 1))
