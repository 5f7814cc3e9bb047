"""The short convolution against its specification."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chela.kernels.short_conv import convolve, eager, naive
from tests.kernels.comparison import assert_same, narrowed

LENGTHS = [1, 2, 63, 64, 65, 130]


def inputs(length: int, width: int, batch: int = 2, dim: int = 3) -> list[Tensor]:
    torch.manual_seed(length * 100 + width)
    x = torch.randn(batch, dim, length, dtype=torch.float64).mT.requires_grad_()  # not contiguous
    weight = torch.randn(dim, width, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(dim, dtype=torch.float64, requires_grad=True)
    return [x, weight, bias]


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(("causal", "width"), [(c, w) for c in (0, 1) for w in (1, 3, 5, 7)])
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_naive_with_every_gradient(length, causal, width, activation):
    tensors = inputs(length, width)
    ours = convolve(*tensors, causal=bool(causal), activation=activation)
    reference = naive.convolve(*tensors, causal=bool(causal), activation=activation)
    assert_same([ours], [reference], tensors, tensors, 1e-10)


def test_tap_j_looks_j_tokens_back_when_causal_and_around_when_centred():
    impulse = torch.zeros(1, 9, 1)
    impulse[0, 4] = 1
    taps = torch.tensor([[1.0, 2.0, 3.0]])
    assert convolve(impulse, taps, causal=True)[0, :, 0].tolist() == [0, 0, 0, 0, 1, 2, 3, 0, 0]
    assert convolve(impulse, taps, causal=False)[0, :, 0].tolist() == [0, 0, 0, 1, 2, 3, 0, 0, 0]


@settings(max_examples=40)
@given(
    length=st.integers(1, 40),
    width=st.integers(1, 9),
    batch=st.integers(0, 3),
    causal=st.booleans(),
)
def test_any_sizes(length, width, batch, causal):
    width += not causal and width % 2 == 0
    x, weight, bias = inputs(length, width, batch)
    ours = convolve(x, weight, bias, causal=causal)
    torch.testing.assert_close(ours, naive.convolve(x, weight, bias, causal=causal))


@pytest.mark.parametrize("causal", [True, False])
def test_no_tokens_have_no_output_and_no_part_in_gradients(causal):
    tensors = inputs(0, 5)
    y = convolve(*tensors, causal=causal, activation="silu")
    assert y.shape == tensors[0].shape
    assert not any(gradient.any() for gradient in torch.autograd.grad(y.sum(), tensors))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-3)])
def test_narrow_dtypes(dtype, tolerance):
    narrow, wide = narrowed(inputs(130, 5), dtype)
    ours = convolve(*narrow, causal=False, activation="silu")
    reference = naive.convolve(*wide, causal=False, activation="silu")
    assert ours.dtype == dtype
    assert_same([ours], [reference], narrow, wide, tolerance)


def test_autocast_does_not_change_the_precision():
    tensors = [t.detach().float() for t in inputs(20, 3)]
    plain = convolve(*tensors, causal=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(convolve(*tensors, causal=True), plain)


@pytest.mark.parametrize("causal", [True, False])
def test_gradcheck(causal):
    assert torch.autograd.gradcheck(
        lambda *t: eager.convolve(*t, causal=causal, activation="silu"), inputs(6, 3)
    )


@pytest.mark.parametrize(
    ("width", "causal", "remedy"), [(4, False, "odd"), (0, True, "at least 1"), (0, False, "odd")]
)
def test_bad_widths_name_the_remedy(width, causal, remedy):
    with pytest.raises(ValueError, match=remedy):
        convolve(torch.zeros(1, 4, 2), torch.zeros(2, width), causal=causal)


def test_a_weight_of_other_channels_names_the_remedy():
    with pytest.raises(ValueError, match=r"\(D, width\)"):
        convolve(torch.zeros(1, 4, 2), torch.zeros(3, 3), causal=True)
