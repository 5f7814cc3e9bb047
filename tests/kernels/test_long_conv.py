"""The long convolution against its specification."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chela.kernels.long_conv import convolve, eager, naive
from tests.kernels.comparison import assert_same, narrowed

LENGTHS = [1, 2, 63, 64, 65, 130]


def inputs(length: int, taps: int, directions: int, batch: int = 2, dim: int = 3) -> list[Tensor]:
    torch.manual_seed(length * 1000 + taps)
    x = torch.randn(batch, dim, length, dtype=torch.float64).mT.requires_grad_()  # not contiguous
    kernel = torch.randn(directions, dim, taps, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(dim, dtype=torch.float64, requires_grad=True)
    return [x, kernel, skip]


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("taps", ["one", "half", "L-1", "L", "L+1", "3L"])
def test_equals_naive_with_every_gradient(length, directions, taps):
    count = {"one": 1, "half": length // 2, "L-1": length - 1, "L": length, "L+1": length + 1}
    tensors = inputs(length, max(1, count.get(taps, 3 * length)), directions)
    ours, reference = convolve(*tensors), naive.convolve(*tensors)
    assert_same([ours], [reference], tensors, tensors, 1e-10)


def test_an_impulse_draws_the_kernel():
    impulse = torch.zeros(1, 7, 1, dtype=torch.float64)
    impulse[0, 3] = 1
    kernel = torch.tensor([[[1.0, 2.0, 3.0]], [[10.0, 20.0, 30.0]]], dtype=torch.float64)
    drawn = convolve(impulse, kernel, torch.tensor([0.5], dtype=torch.float64))[0, :, 0]
    expected = torch.tensor([30, 20, 10, 1.5, 2, 3, 0], dtype=torch.float64)
    torch.testing.assert_close(drawn, expected)


@settings(max_examples=40)
@given(
    length=st.integers(1, 24),
    taps=st.integers(1, 60),
    directions=st.integers(1, 2),
    batch=st.integers(0, 3),
)
def test_any_sizes(length, taps, directions, batch):
    x, kernel, skip = inputs(length, taps, directions, batch)
    torch.testing.assert_close(convolve(x, kernel, skip), naive.convolve(x, kernel, skip))
    torch.testing.assert_close(convolve(x, kernel), naive.convolve(x, kernel))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-3)])
@pytest.mark.parametrize("directions", [1, 2])
def test_narrow_dtypes(dtype, tolerance, directions):
    narrow, wide = narrowed(inputs(130, 130, directions), dtype)
    ours, reference = convolve(*narrow), naive.convolve(*wide)
    assert ours.dtype == dtype
    assert_same([ours], [reference], narrow, wide, tolerance)


@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (0, 0)])
@pytest.mark.parametrize("skips", [True, False])
def test_no_tokens_have_no_output_and_no_part_in_gradients(batch, length, skips):
    _, *weights = inputs(5, 5, 2)
    x = torch.zeros(batch, length, weights[0].shape[1], dtype=torch.bfloat16, requires_grad=True)
    leaves = [x, *weights[: 1 + skips]]
    y = convolve(*leaves)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert not any(gradient.any() for gradient in torch.autograd.grad(y.sum(), leaves))


def test_autocast_does_not_change_the_precision():
    tensors = [t.detach().float() for t in inputs(20, 20, 2)]
    plain = convolve(*tensors)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(convolve(*tensors), plain)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("taps", [2, 9])
def test_gradcheck(directions, taps):
    assert torch.autograd.gradcheck(eager.convolve, inputs(5, taps, directions))


@given(st.integers(1, 50_000))
def test_fft_sizes_are_large_enough_not_too_large_and_few(minimum):
    size = eager.fft_size(minimum)
    assert minimum <= size <= max(2, 1.5 * minimum)
    odd = size
    while odd % 2 == 0:
        odd //= 2
    assert odd in (1, 3)


@pytest.mark.parametrize("shape", [(3, 2, 4), (1, 2, 0), (1, 3, 4), (2, 4)])
def test_kernels_that_do_not_fit_name_the_remedy(shape):
    with pytest.raises(ValueError, match="give"):
        convolve(torch.zeros(1, 4, 2), torch.zeros(shape))
