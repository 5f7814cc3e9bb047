"""A tree of wavelets against the tree itself in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chela.kernels import use_kernels
from chela.kernels.wavelet_tree import fused, naive, wavelet_tree
from chela.mixers.long_kernels import WaveletKernel
from tests.kernels.comparison import DEVICE, assert_close, assert_same, narrowed

pytestmark = pytest.mark.interpreted


def tree(max_length: int, directions: int = 1, dim: int = 1, taps: int = 2) -> list[Tensor]:
    torch.manual_seed(0)
    kernel = WaveletKernel(dim, max_length, directions, taps)
    return [each.detach().to(DEVICE) for each in kernel.parameters()]


def check(leaves: list[Tensor], length: int) -> None:
    leaves, wide = narrowed(leaves, torch.float32)
    ours = wavelet_tree(*leaves, length, implementation="triton")
    assert_same([ours], [naive.wavelet_tree(*wide, length)], leaves, wide, 1e-6)


@settings(max_examples=12)
@given(
    length=st.integers(1, 200),
    beyond=st.integers(0, 400),
    directions=st.integers(1, 2),
    dim=st.integers(1, 2),
)
def test_taps_and_gradients_are_the_trees(length, beyond, directions, dim):
    check(tree(length + beyond, directions, dim), length)


@pytest.mark.parametrize(
    ("length", "max_length"), [(1, 1), (2, 2), (64, 64), (65, 65), (4096, 4096), (9001, 20000)]
)
def test_so_they_are_at_the_seams_and_in_several_parts(
    length, max_length, uninitialised_memory_is_nan
):
    assert fused._cut(length)[0] == (3 if length == 9001 else 1)
    check(tree(max_length), length)


def test_a_filter_of_zeros_has_the_gradients_of_any_other():
    """The products of taps are made as such: nothing is divided by one of them."""
    filters, weights = tree(300)
    filters[0, ..., 1] = 0
    check([filters, weights], 290)


def test_a_module_of_some_channels_and_fewer_taps_is_a_cut():
    kernel = WaveletKernel(5, 200, 2, 2).to(DEVICE)
    whole = kernel(200)
    kernel.implementation = "triton"
    assert_close(kernel(99, slice(1, 4)), whole[:, 1:4, :99].double(), 1e-6)


def test_wider_filters_are_for_plain_pytorch():
    kernel = WaveletKernel(1, 10, 1, taps=3).to(DEVICE)
    with pytest.raises(ValueError, match="wavelet_tree: the Triton kernels serve filters of 2"):
        use_kernels(kernel, "triton", DEVICE)
    with pytest.raises(ValueError, match="not of 3; use implementation='torch'"):
        wavelet_tree(*kernel.parameters(), 10, implementation="triton")


def test_what_does_not_fit_is_refused():
    filters, weights = tree(10)
    with pytest.raises(ValueError, match=r"\(2, directions, D, taps\)"):
        wavelet_tree(filters[:1], weights, 10)
    with pytest.raises(ValueError, match="are not those"):
        wavelet_tree(filters, weights.repeat(1, 2, 1), 10)
    for length in (0, 17):
        with pytest.raises(ValueError, match="this tree has 16 taps"):
            wavelet_tree(filters, weights, length)
