"""The fused short convolution: against the specification, and as a PyTorch operator.

On a CPU the kernels run interpreted, so cases are small; with a GPU the same cases run compiled,
and those marked ``gpu`` join them. Uninitialised memory is NaN throughout.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chela.kernels.short_conv import convolve, eager, fused_kernels, naive
from tests.kernels.comparison import DEVICE, assert_close, assert_same, gpu_only, narrowed

TOLERANCES = {torch.bfloat16: 5e-3, torch.float16: 1e-3, torch.float32: 1e-5}

pytestmark = [pytest.mark.interpreted, pytest.mark.usefixtures("uninitialised_memory_is_nan")]


def inputs(
    batch: int, length: int, dim: int, width: int, dtype: torch.dtype, scale: float = 1.0
) -> list[Tensor]:
    """x (not contiguous) in ``dtype``, weight and bias in float32."""
    torch.manual_seed(length * 100 + width)
    x = (torch.randn(batch, dim, length, device=DEVICE) * scale).to(dtype).mT.requires_grad_()
    weight = torch.randn(dim, width, device=DEVICE, requires_grad=True)
    bias = torch.randn(dim, device=DEVICE, requires_grad=True)
    return [x, weight, bias]


def check(leaves: list[Tensor], reference, causal: bool, activation: str | None) -> None:
    """The fused form against ``reference`` in float64, with every gradient."""
    _, wide = narrowed(leaves, torch.float64)
    ours = convolve(*leaves, causal=causal, activation=activation, implementation="triton")
    assert ours.dtype == leaves[0].dtype
    true = reference(*wide, causal=causal, activation=activation)
    assert_same([ours], [true], leaves, wide, TOLERANCES[ours.dtype])


CASES = [  # batch, length, dim, width, causal, activation, bias
    (1, 1, 40, 4, True, "silu", True),  # every tap but one looks outside
    (2, 63, 10, 5, False, "silu", True),
    (1, 130, 128, 4, True, "silu", True),  # two programs share a sequence
    (3, 20, 17, 2, True, None, False),  # two channel blocks, the second nearly empty
    (1, 33, 20, 9, True, "silu", False),
    (1, 34, 20, 9, False, "silu", True),
    (1, 3, 20, 7, False, "silu", True),  # shorter than the window
    (2, 9, 20, 1, False, "silu", True),
]


NARROW = [(case, dtype) for case in CASES[:3] for dtype in (torch.bfloat16, torch.float16)]


@pytest.mark.parametrize(
    ("case", "dtype"), [(case, torch.float32) for case in CASES] + NARROW, ids=str
)
def test_equals_naive_with_every_gradient(case, dtype):
    batch, length, dim, width, causal, activation, with_bias = case
    leaves = inputs(batch, length, dim, width, dtype)
    check(leaves if with_bias else leaves[:2], naive.convolve, causal, activation)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # SiLU of -1e4 is 0 through it
@pytest.mark.parametrize("scale", [1e4, 1e-8])
def test_extreme_values(scale):
    check(inputs(1, 40, 24, 5, torch.bfloat16, scale), naive.convolve, False, None)
    check(inputs(1, 40, 24, 4, torch.bfloat16, scale)[:2], naive.convolve, True, "silu")


@settings(max_examples=8)
@given(
    batch=st.integers(0, 2),
    length=st.integers(1, 40),
    dim=st.integers(1, 40),
    width=st.integers(1, 9),
    causal=st.booleans(),
)
def test_any_sizes(batch, length, dim, width, causal):
    width += not causal and width % 2 == 0
    x, weight, bias = inputs(batch, length, dim, width, torch.float32)
    ours = convolve(x, weight, bias, causal=causal, implementation="triton")
    assert_close(ours, naive.convolve(x, weight, bias, causal=causal).double(), 1e-5)
    gradients = torch.autograd.grad(ours.sum(), [x, weight, bias])
    for gradient in gradients:
        assert torch.isfinite(gradient).all()


def test_parts_beyond_one_tile_of_the_reduction_are_summed():
    torch.manual_seed(0)
    partial = torch.randn(300, 4, 40, device=DEVICE)
    dweight, dbias = torch.empty(40, 3, device=DEVICE), torch.empty(40, device=DEVICE)
    fused_kernels.sum_parts[(2, 4)](partial, dweight, dbias, 300, 40, WIDTH=3, ROWS=128, BD=32)
    assert_close(dweight, partial[:, :3].double().sum(0).T, 1e-5)
    assert_close(dbias, partial[:, 3].double().sum(0), 1e-5)


@pytest.mark.parametrize("with_bias", [True, False])
def test_is_a_well_formed_operator(with_bias):
    x, weight, bias = inputs(1, 5, 4, 3, torch.float32)
    arguments = (x, weight, bias if with_bias else None, True, True)
    torch.library.opcheck(torch.ops.chela.short_conv, arguments)
    values = [None if a is None else a.detach() for a in arguments[:3]]
    torch.library.opcheck(torch.ops.chela.short_conv_backward, (x.detach(), *values, True, True))


def test_what_the_kernels_do_not_serve_names_the_remedy():
    x, weight, bias = inputs(1, 5, 4, 10, torch.float32)
    with pytest.raises(ValueError, match="widths up to 9; use implementation='torch'"):
        convolve(x, weight, bias, causal=True, implementation="triton")


@pytest.mark.parametrize("dim", [60, 80, 128, 200, 512])
@pytest.mark.parametrize("length", [1, 63, 64, 500, 1000, 1213, 4096])
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=gpu_only, id=f"{case}") for case in [(4, True), (5, False)]]
)
def test_full_sizes(case, length, dim):
    width, causal = case
    for dtype in TOLERANCES:
        for batch in (1, 3):
            check(inputs(batch, length, dim, width, dtype), eager.convolve, causal, "silu")


@pytest.mark.parametrize("width", [pytest.param(width, marks=gpu_only) for width in range(2, 10)])
def test_all_widths(width):
    for dtype in TOLERANCES:
        leaves = inputs(2, 777, 96, width, dtype)
        check(leaves, eager.convolve, True, "silu")
        if width % 2:
            check(leaves, eager.convolve, False, None)
