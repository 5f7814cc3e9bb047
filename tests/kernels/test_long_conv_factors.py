"""The pieces of the tensor-core long convolution: spectrum, factors, sizes and scheme."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from chela.kernels.long_conv import naive, scheme
from chela.kernels.long_conv.factors import LARGEST_TILE, factors
from chela.kernels.long_conv.monarch import factor_sizes, room_bound, room_for
from chela.kernels.long_conv.scheme import MAX_LENGTH, TWO_FACTORS
from chela.kernels.long_conv.spectrum import spectrum, spectrum_gradient
from tests.kernels.comparison import assert_close

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def transform(size: int, length: int) -> Tensor:
    """X_j = sum_n x_n exp(-2 pi i (j + 1/4) n / N) as a matrix (N, L), entry by entry."""
    j = torch.arange(size, dtype=torch.float64)[:, None]
    n = torch.arange(length, dtype=torch.float64)
    angles = -2 * math.pi * (j + 0.25) * n / size
    return torch.complex(angles.cos(), angles.sin())


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("taps", [1, 7, 12, 13, 40])
@pytest.mark.parametrize(("length", "rows", "columns"), [(1, 1, 8), (13, 2, 8), (16, 2, 8)])
def test_products_of_spectra_are_the_linear_convolution(length, rows, columns, taps, directions):
    torch.manual_seed(taps)
    x = torch.randn(2, length, 3, dtype=torch.float64)
    kernel = torch.randn(directions, 3, taps, dtype=torch.float64)
    skip = torch.randn(3, dtype=torch.float64)
    turns = factors(rows, columns, DEVICE)[2]
    scaled, scales = spectrum(
        kernel.float().to(DEVICE), skip.float().to(DEVICE), length, rows, columns, turns
    )
    planes = (scaled * scales).double().cpu()  # (2, M, C, D)
    assert scaled.abs().max() <= (2 * rows * columns) ** 0.5 / 8 * (1 + 1e-6)
    # Frequency j = f + M g lies at [f, g].
    values = torch.complex(*planes).permute(2, 1, 0).flatten(1)  # (D, N)
    matrix = transform(rows * columns, length)
    product = torch.einsum("jn,bnd->bdj", matrix, x.to(matrix.dtype)) * values
    y = torch.einsum("jn,bdj->bnd", matrix.conj(), product).real / (rows * columns)
    assert_close(y, naive.convolve(x, kernel, skip), 1e-6)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("taps", [1, 12, 13, 40])
def test_the_spectrum_gradient_is_that_of_the_formula(taps, directions):
    """K_j = sum_l kernel_l exp(-2 pi i (j + 1/4) l / N), over negative lags l as well."""
    torch.manual_seed(taps)
    kernel = torch.randn(directions, 3, taps, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(3, dtype=torch.float64, requires_grad=True)
    waves = transform(16, 13)
    past, future = kernel[0, :, :13], kernel[-1, :, :12]
    values = past.to(waves.dtype) @ waves[:, : past.shape[1]].T + skip[:, None]  # (D, N)
    if directions == 2:
        values = values + future.to(waves.dtype) @ waves[:, 1 : 1 + future.shape[1]].conj().T
    partial = torch.randn(3, 2, 2, 8, 3)
    upstream = torch.complex(*partial.double().sum(0)).permute(2, 1, 0).flatten(1)
    expected = torch.autograd.grad(values, [kernel, skip], upstream)
    narrow = kernel.detach().float().to(DEVICE)
    ours = spectrum_gradient(partial.to(DEVICE), narrow, 13, factors(2, 8, DEVICE)[2])
    for mine, true in zip(ours, expected, strict=True):
        assert_close(mine.cpu(), true, 1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(1, 16), (5, 16), (16, 32), (20, 64)])
def test_the_factors_multiply_to_the_transform(rows, columns):
    table, matrices, turns = (t.double().cpu() for t in factors(rows, columns, DEVICE))
    assert table.shape[0] % LARGEST_TILE == 0
    assert not table[2 * rows :].any()
    assert not table[:, rows:].any()
    outer = torch.complex(*table[: 2 * rows, :rows].unflatten(0, (rows, 2)).unbind(1))  # f, c
    parts = matrices.unflatten(1, (columns // 8, 2, 8)).transpose(1, 2).flatten(2, 3)
    real, imaginary = parts.unbind(1)  # (M, C, 2 C)
    inner = torch.complex(real[..., :columns], imaginary[..., :columns])  # f, g, r
    assert torch.equal(real[..., columns:], -imaginary[..., :columns])
    assert torch.equal(imaginary[..., columns:], real[..., :columns])
    size = rows * columns
    whole = torch.einsum("fgr,fc->gfcr", inner, outer).reshape(size, size)
    expected = transform(size, size) * size**-0.5
    assert (whole - expected).norm() <= 1e-3 * expected.norm()  # float16 entries
    angles = -2 * math.pi * torch.arange(size) / (4 * size)
    assert_close(turns, torch.stack([angles.cos(), angles.sin()], dim=1).double(), 1e-6)
    identity = torch.eye(2 * columns, dtype=torch.float64).expand(rows, -1, -1)
    assert_close(matrices @ matrices.mT, identity, 1e-3)


@given(st.integers(1, TWO_FACTORS))
def test_sizes_cover_the_length_and_waste_at_most_a_quarter(length):
    rows, columns = factor_sizes(length)
    assert length <= rows * columns <= max(columns, 1.25 * (length + columns))
    assert rows <= 256


def test_there_are_few_sizes():
    sizes = {factor_sizes(length) for length in range(1, TWO_FACTORS + 1)}
    assert len(sizes) <= 80


def test_the_scheme_is_announced():
    assert scheme(1024, torch.bfloat16) == "monarch"
    assert scheme(TWO_FACTORS, torch.float16) == "monarch"
    assert scheme(TWO_FACTORS + 1, torch.bfloat16) == "deep monarch"
    assert scheme(MAX_LENGTH, torch.float16) == "deep monarch"
    assert scheme(MAX_LENGTH + 1, torch.bfloat16) == "fft"
    assert scheme(1024, torch.float32) == "fft"


def test_the_room_for_a_symbolic_length_is_enough_for_every_length():
    assert all(room_bound(length) >= room_for(length) for length in range(1, TWO_FACTORS + 1))
