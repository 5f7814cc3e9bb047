"""The long convolution in three factors: against the specification, and as a PyTorch operator.

The sizes of the factors are set by hand, so that a few dozen tokens take the way of a million; with
a GPU the cases run compiled, and real lengths join them.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chela.kernels.long_conv import convolve, deep, eager, naive
from chela.kernels.long_conv.scheme import MAX_LENGTH, TWO_FACTORS
from tests.conftest import program
from tests.kernels.comparison import DEVICE, assert_same, narrowed, on_a_gpu
from tests.kernels.test_long_conv_triton import TOLERANCES, inputs

pytestmark = [pytest.mark.interpreted, pytest.mark.usefixtures("uninitialised_memory_is_nan")]


@pytest.fixture
def cut(monkeypatch):
    """Sets P, M and C, and how many rows and channels a program takes."""

    def set_sizes(*sizes: int, rows: int = 128, channels: int = 64) -> None:
        monkeypatch.setattr(deep, "factor_sizes", lambda length: sizes)
        monkeypatch.setattr(deep, "ROWS", rows)
        monkeypatch.setattr(deep, "CHANNELS", channels)

    return set_sizes


def check(leaves, reference) -> None:
    """The three factors against ``reference`` in float64, with every gradient."""
    _, wide = narrowed(leaves, torch.float64)
    skip = leaves[2] if len(leaves) == 3 else None
    ours = deep.convolve(leaves[0], leaves[1], skip)
    assert ours.dtype == leaves[0].dtype
    assert_same([ours], [reference(*wide)], leaves, wide, TOLERANCES[ours.dtype])


def test_equals_naive_with_every_gradient(cut):
    cut(1, 16, 8)
    check(inputs(1, 24, 9, 40, 2, torch.bfloat16), naive.convolve)


@pytest.mark.parametrize(
    ("sizes", "case"),  # batch, length, dim, taps, directions, dtype
    [
        ((2, 16, 8), (1, 256, 3, 256, 2, torch.float16)),  # nothing is padded
        ((2, 16, 8), (1, 150, 3, 20, 1, torch.float16)),  # a short kernel
        ((1, 16, 8), (1, 20, 3, 150, 2, torch.float16)),  # taps beyond the transform
    ],
    ids=str,
)
def test_equals_the_fft_with_every_gradient(sizes, case, cut):
    cut(*sizes)
    check(inputs(*case), eager.convolve)


@pytest.mark.parametrize("sizes", [(17, 16, 8), (1, 16, 8)], ids=["outer", "middle"])
def test_several_blocks_of_rows_and_of_channels(sizes, cut):
    cut(*sizes, rows=32 if sizes[0] > 16 else 16, channels=16)
    check(inputs(1, 120, 20 if sizes[0] == 1 else 9, 120, 2, torch.bfloat16), eager.convolve)


@pytest.mark.parametrize("scale", [1e4, 1e-8])
def test_extreme_values(scale, cut):
    cut(2, 16, 8)
    x, kernel, _ = inputs(1, 200, 2, 200, 2, torch.bfloat16, scale)
    check([x, (kernel.detach() / scale).requires_grad_()], eager.convolve)


def test_magnitudes_that_differ_in_a_sequence_and_among_sequences_and_channels(cut):
    cut(2, 16, 8)
    x, kernel, _ = (t.detach() for t in inputs(2, 200, 3, 200, 2, torch.float16))
    decay = torch.exp(-0.125 * torch.arange(200, device=DEVICE))  # down to 2e-11, below float16
    sizes = torch.tensor([1.0, 1e-1, 1e-2], device=DEVICE)
    x = x * (decay[:, None] * torch.tensor([[[100.0]], [[1.0]]], device=DEVICE)).half()
    kernel = kernel * decay * sizes[:, None]
    y, expected = deep.convolve(x, kernel, None), eager.convolve(x.double(), kernel.double())
    errors = (y - expected).norm(dim=1) / expected.norm(dim=1)  # (B, D)
    assert errors.max() <= TOLERANCES[torch.float16]


def test_zeros_stay_zero(cut):
    cut(2, 16, 8)
    x, kernel, skip = inputs(1, 20, 2, 20, 2, torch.bfloat16)
    assert not deep.convolve(torch.zeros_like(x), kernel, skip).any()
    assert not deep.convolve(x, torch.zeros_like(kernel), None).any()


def test_an_empty_batch():
    x, kernel, skip = inputs(0, TWO_FACTORS + 1, 4, 20, 2, torch.bfloat16)
    y = convolve(x, kernel, skip, implementation="triton")
    dx, dkernel, dskip = torch.autograd.grad(y.sum(), [x, kernel, skip])
    assert y.shape == dx.shape == x.shape
    assert not dkernel.any()
    assert not dskip.any()


def test_is_a_well_formed_operator_that_keeps_nothing_without_gradients(cut):
    cut(1, 16, 8)
    x, kernel, skip = inputs(1, 2, 1, 2, 2, torch.bfloat16)
    torch.library.opcheck(torch.ops.chela.longest_conv, (x, kernel, skip, 128))
    frozen = x.detach(), kernel.detach()
    y, *kept = torch.ops.chela.longest_conv(*frozen, None, 128)
    torch.library.opcheck(
        torch.ops.chela.longest_conv_backward,
        (*frozen, *kept),
        test_utils=("test_schema", "test_faketensor"),
    )
    again, *nothing = torch.ops.chela.longest_conv(*frozen, None, 0)
    assert torch.equal(y, again)
    assert not any(t.numel() for t in nothing)


@given(st.integers(TWO_FACTORS + 1, MAX_LENGTH))
def test_sizes_cover_the_length_and_waste_at_most_a_quarter(length):
    outer, middle, inner = deep.factor_sizes(length)
    assert length <= math.prod((outer, middle, inner)) <= 1.25 * (length + middle * inner)
    assert outer <= 128
    assert deep.room_bound(length) >= deep.room_for(length)


def test_there_are_few_sizes():
    lengths = range(TWO_FACTORS + 1, MAX_LENGTH + 1, 64)
    assert len({deep.factor_sizes(length) for length in lengths}) <= 40


def test_every_kernel_of_the_long_convolution_compiles_for_a_hopper_gpu():
    """Also without one: what the interpreter lets pass a compiler may refuse."""
    done = program("tests/kernels/compile_long_conv_for_hopper.py", TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr
    two = {"align_units", "arrange", "collect", "fold", "mix_blocks", "multiply_frequencies",
           "multiply_frequencies_backward", "unfold", "unmix_blocks"}  # fmt: skip
    three = {"mix_middle", "mix_outer", "mix_taps", "multiply_spectra", "unmix_taps",
             "multiply_spectra_backward", "unmix_middle", "unmix_outer"}  # fmt: skip
    assert set(done.stdout.split()) == two | three


@on_a_gpu
@pytest.mark.parametrize("length", [16385, 20000, 65536, 100000, 131072, 300000, 2**20])
@pytest.mark.parametrize(("batch", "dim", "directions"), [(1, 128, 2), (3, 40, 1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_full_sizes(length, batch, dim, directions, dtype):
    check(inputs(batch, length, dim, length, directions, dtype), eager.convolve)
