"""Kernel parametrisations: each against its definition, and cuts that agree."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from chela.mixers.long_kernels import (
    CosineKernel,
    EMAKernel,
    ExplicitKernel,
    LongKernel,
    MultiscaleKernel,
    WaveletKernel,
    stretched,
)

LENGTHS = [1, 2, 5, 63, 64, 65, 100, 128, 129, 1000]


def multiscale(max_length: int, directions: int = 2, taps: int = 64) -> MultiscaleKernel:
    torch.manual_seed(0)
    return MultiscaleKernel(3, max_length, directions, taps, decay=0.5).double()


def explicit(max_length: int, directions: int = 2, dropout: float = 0.0) -> ExplicitKernel:
    torch.manual_seed(0)
    return ExplicitKernel(3, max_length, directions, soft_threshold=0.5, dropout=dropout).double()


def cosine(max_length: int, directions: int = 2, dim: int = 3) -> CosineKernel:
    torch.manual_seed(0)
    return CosineKernel(dim, max_length, directions, 6, 4, None).double()


def ema(max_length: int, directions: int = 2) -> EMAKernel:
    torch.manual_seed(0)
    return EMAKernel(3, max_length, directions, ema_dim=5).double()


def wavelet(max_length: int, directions: int = 2, taps: int = 2) -> WaveletKernel:
    torch.manual_seed(0)
    return WaveletKernel(3, max_length, directions, taps).double()


@pytest.mark.parametrize("make", [multiscale, explicit, ema, cosine, wavelet])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("max_length", LENGTHS)
def test_a_shorter_kernel_is_a_cut_of_the_longest(make, directions, max_length):
    kernel: LongKernel = make(max_length, directions)
    longest = kernel(max_length)
    assert longest.shape == (directions, 3, max_length)
    for length in {1, max_length // 3 + 1, max(1, max_length - 1)}:
        torch.testing.assert_close(kernel(length), longest[..., :length], rtol=0, atol=1e-12)


@pytest.mark.parametrize("max_length", LENGTHS)
def test_multiscale_has_the_defined_number_of_sub_kernels_and_norm_one(max_length):
    kernel = multiscale(max_length)
    expected = 1 + max(0, math.ceil(math.log2(max_length / 64)))
    assert kernel.sub_kernels.shape == (expected, 2, 3, min(64, max_length))
    norm = kernel(max_length).square().sum((0, 2)).sqrt()
    torch.testing.assert_close(norm, torch.ones(3).double(), rtol=1e-6, atol=0)


@settings(max_examples=25)
@given(max_length=st.integers(1, 300), taps=st.integers(1, 20))
def test_multiscale_is_stretched_weighted_and_concatenated(max_length, taps):
    kernel = multiscale(max_length, taps=taps)
    taps = min(taps, max_length)
    pieces = []
    for i, sub_kernel in enumerate(kernel.sub_kernels):
        stretch = 2 ** max(0, i - 1)
        # Stretched tap t lies at (t + 1/2) / stretch - 1/2 between the taps that it mixes.
        at = ((torch.arange(taps * stretch).double() + 0.5) / stretch - 0.5).clamp(0, taps - 1)
        low = at.floor().long()
        high = (low + 1).clamp(max=taps - 1)
        mixed = sub_kernel[..., low] * (1 - at + low) + sub_kernel[..., high] * (at - low)
        pieces.append(mixed * 0.5**i)
    assert sum(p.shape[-1] for p in pieces[:-1]) < max_length  # no sub-kernel is idle
    whole = torch.cat(pieces, -1)[..., :max_length] / kernel.initial_norm
    torch.testing.assert_close(kernel(max_length), whole)


@pytest.mark.parametrize(("length", "built"), [(1, 1), (64, 1), (65, 2), (129, 3), (1000, 5)])
def test_multiscale_builds_only_what_reaches_into_the_length(length, built, monkeypatch):
    kernel = multiscale(1000)
    factors = []

    def spy(taps, factor):
        factors.append(factor)
        return stretched(taps, factor)

    monkeypatch.setattr("chela.mixers.long_kernels.stretched", spy)
    kernel(length).sum().backward()
    assert factors == [1, 1, 2, 4, 8][:built]
    gradient = kernel.sub_kernels.grad
    assert [bool(each.any()) for each in gradient] == [i < built for i in range(5)]


def test_the_initial_norm_stays_while_the_kernel_moves():
    kernel = multiscale(100)
    before = kernel(100)
    with torch.no_grad():
        kernel.sub_kernels.mul_(3)
    torch.testing.assert_close(kernel(100), 3 * before)
    assert "initial_norm" in kernel.state_dict()


def test_explicit_taps_are_shrunk_to_zero_below_the_threshold():
    kernel = explicit(50)
    deviation = 100**-0.5
    shrunk = kernel(50)
    taps = kernel.taps
    expected = taps.sign() * (taps.abs() - 0.5 * deviation).clamp(min=0)
    torch.testing.assert_close(shrunk, expected)
    assert 0.2 < (shrunk == 0).double().mean() < 0.6


def test_explicit_taps_are_dropped_in_training_only():
    kernel = explicit(1000, dropout=0.25)
    whole = kernel.eval()(1000)
    dropped = kernel.train()(1000)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)
    assert 0.7 < kept.sum() / (whole != 0).sum() < 0.8


@settings(max_examples=25)
@given(
    dim=st.integers(1, 40),
    max_length=st.integers(1, 90),
    terms=st.integers(1, 9),
    windows=st.tuples(st.integers(1, 100), st.none() | st.integers(1, 200)),
)
def test_cosine_is_its_series(dim, max_length, terms, windows):
    """Term by term, channel by channel, as the docstring has it."""
    kernel = CosineKernel(dim, max_length, 2, terms, *windows).double()
    longest = windows[1] or max_length
    shortest = min(windows[0], longest)
    per_group = math.ceil(dim / 16)
    groups = math.ceil(dim / per_group)
    taps = kernel(max_length)
    assert taps.shape == (2, dim, max_length)
    lags = torch.arange(max_length).double()
    for channel in {0, dim // 2, dim - 1}:
        place = (channel // per_group) / max(1, groups - 1)
        window = shortest * (longest / shortest) ** place
        expected = torch.zeros(2, max_length, dtype=torch.float64)
        for m in range(terms):
            fade = torch.where(lags < window, torch.cos(math.pi * lags / 2 / window) ** 2, 0)
            phi = fade * torch.cos(math.pi * m * (lags + 0.5) / window)
            phi = phi / max(float(phi.norm()), 1e-3) / (2 * terms) ** 0.5
            expected += kernel.coefficients[:, channel, m, None] * phi
        torch.testing.assert_close(taps[:, channel], expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=25)
@given(max_length=st.integers(1, 300), taps=st.integers(2, 5))
def test_wavelet_is_its_convolutions(max_length, taps):
    """A signal goes down the tree scale by scale; the kernel is what an impulse leaves behind."""
    kernel = wavelet(max_length, taps=taps)
    h, g = kernel.filters.flatten(1, 2)  # (directions * D, taps)
    weights = kernel.weights.flatten(0, 1)
    scales = weights.shape[1] - 1
    reach = (taps - 1) * (2**scales - 1) + 1
    assert reach >= max_length
    assert scales == 1 or (taps - 1) * (2 ** (scales - 1) - 1) + 1 < max_length  # none is idle
    low = torch.zeros(1, len(h), max_length, dtype=torch.float64)
    low[..., 0] = 1
    expected = torch.zeros_like(low)
    for scale in range(scales):
        past = F.pad(low, (2**scale * (taps - 1), 0))
        high, low = (
            F.conv1d(past, each.flip(-1)[:, None], dilation=2**scale, groups=len(h))
            for each in (g, h)
        )
        expected += weights[:, scale, None] * high
    expected += weights[:, -1:] * low
    torch.testing.assert_close(kernel(max_length).flatten(0, 1), expected[0])


def test_wavelet_starts_with_a_norm_of_about_one_and_has_few_parameters():
    torch.manual_seed(0)
    kernel = WaveletKernel(500, 1024, 2, 2)
    assert kernel(1024).square().sum((0, 2)).mean().item() == pytest.approx(1, abs=0.1)
    assert sum(p.numel() for p in kernel.parameters()) == 2 * 500 * (2 * 2 + 10 + 1)
    assert [*kernel.kernel_parameters()] == [kernel.filters]


def test_cosine_starts_with_a_norm_of_about_one_and_learns_its_coefficients_alone():
    kernel = cosine(1024, dim=64)
    norms = kernel(1024).square().sum((0, 2)).sqrt()
    assert 0.7 < norms.mean() < 1.3
    assert [name for name, _ in kernel.named_parameters()] == ["coefficients"]
    assert not list(kernel.kernel_parameters())  # trained like a weight matrix
    assert list(kernel.state_dict()) == ["coefficients"]


def test_ema_is_megas_recurrence():
    kernel = ema(20, directions=1)
    alpha, delta = kernel.alpha.sigmoid()[0], kernel.delta.sigmoid()[0]  # (D, N)
    hidden = torch.zeros_like(alpha)
    response = []
    for t in range(20):
        impulse = float(t == 0)
        hidden = alpha * kernel.beta[0] * impulse + (1 - alpha * delta) * hidden
        response.append((kernel.eta[0] * hidden).sum(-1) / 5**0.5)
    torch.testing.assert_close(kernel(20)[0], torch.stack(response, -1))


def test_ema_survives_saturated_sigmoids():
    kernel = ema(20)
    with torch.no_grad():
        kernel.alpha.fill_(100)
        kernel.delta.fill_(100)
    out = kernel(20)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in kernel.parameters())


@pytest.mark.parametrize("make", [multiscale, explicit, ema])
def test_all_parameters_are_kernel_parameters(make):
    kernel = make(30)
    assert list(kernel.kernel_parameters()) == list(kernel.parameters())
    assert list(kernel.parameters())


@pytest.mark.parametrize("factor", [1, 2, 4, 64])
@pytest.mark.parametrize("taps", [1, 2, 5, 64])
def test_stretching_is_linear_interpolation(taps: int, factor: int) -> None:
    x = torch.randn(2, 3, taps, dtype=torch.float64, requires_grad=True)
    ours, theirs = stretched(x, factor), F.interpolate(x, taps * factor, mode="linear")
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, upstream)[0] for y in (ours, theirs)))
