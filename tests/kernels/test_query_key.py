"""Queries and keys: plain and fused form against the naive formula, with every gradient."""

from __future__ import annotations

from typing import Any

import pytest
import token_cases
import torch
from comparison import on_a_gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from token_cases import TOLERANCES
from torch import Tensor

from chela.kernels.query_key import Affines, fused, naive, query_key

pytestmark = [pytest.mark.interpreted, pytest.mark.usefixtures("poisoned_memory")]
AFFINES = ["scale_q", "shift_q", "scale_k", "shift_k"]


def case(
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    length: int = 21,
    dim: int = 20,
    features: int = 40,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """The leaves; x, which is z, is not contiguous."""
    torch.manual_seed(length * 100 + dim)
    leaves = {
        "x": torch.randn(batch, dim, length).mT * scale,
        "weight": torch.randn(features, dim) * dim**-0.5,
        "bias": torch.randn(features),
        **{name: torch.randn(features) for name in AFFINES},
    }
    return token_cases.prepared(leaves, dtype)


def arguments(leaves: dict[str, Tensor]) -> tuple[Any, ...]:
    affines = Affines(*[leaves[name] for name in AFFINES])
    return leaves["x"], leaves["weight"], leaves["bias"], affines


def check(leaves: dict[str, Tensor], implementation: str = "triton") -> None:
    token_cases.check(
        lambda t: query_key(*arguments(t), implementation=implementation),
        lambda t: naive.query_key(*arguments(t)),
        leaves,
        TOLERANCES[leaves["x"].dtype],
    )


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_equals_naive(implementation):
    check(case(), implementation)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes(dtype):
    check(case(dtype, length=50))


@pytest.mark.parametrize(("dim", "features"), [(3, 2), (60, 30), (80, 64), (128, 96), (130, 17)])
def test_any_width(dim, features):
    check(case(torch.float32, 1, 33, dim, features))


@settings(max_examples=10, deadline=None)
@given(
    batch=st.integers(0, 3),
    length=st.integers(1, 20),
    dim=st.integers(1, 33),
    features=st.integers(1, 40),
)
def test_any_sizes(batch, length, dim, features):
    leaves = case(torch.float32, batch, length, dim, features)
    for mine, true in zip(
        query_key(*arguments(leaves), implementation="triton"),
        naive.query_key(*arguments(leaves)),
        strict=True,
    ):
        torch.testing.assert_close(mine, true, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1e4, 1e-8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_values(scale, dtype):
    check(case(dtype, scale=scale))


def test_a_token_disturbs_no_other():
    leaves = case()
    clean = query_key(*arguments(leaves), implementation="triton")
    with torch.no_grad():
        leaves["x"][0, 3] = float("nan")
    for one, other in zip(
        clean, query_key(*arguments(leaves), implementation="triton"), strict=True
    ):
        assert other[0, 3].isnan().all()
        assert torch.equal(one[0, 4:], other[0, 4:])
        assert torch.equal(one[1], other[1])


def test_products_may_be_narrower_than_z():
    leaves = case()
    for out in query_key(*arguments(leaves), dtype=torch.bfloat16, implementation="triton"):
        assert out.dtype == torch.bfloat16


def test_operators_are_registered_well():
    """Schema, fake kernel, autograd, and tracing through them, by PyTorch's own examination."""
    torch.use_deterministic_algorithms(False)  # opcheck compares the memory of unused outputs
    torch.library.opcheck(fused._forward, (*case(length=5).values(), torch.float32))


def test_arguments_that_do_not_fit_name_the_remedy():
    z, weight, bias, affines = arguments(case())
    with pytest.raises(ValueError, match=r"weight as \(N, D\)"):
        query_key(z, weight[:, 1:], bias, affines)
    with pytest.raises(ValueError, match=r"bias is .* give \(N,\) = \(40,\)"):
        query_key(z, weight, bias[1:], affines)
    short = Affines(bias, bias, bias[1:], bias)
    with pytest.raises(ValueError, match=r"scale_k is .* give \(N,\) = \(40,\)"):
        query_key(z, weight, bias, short)
    wide = arguments(case(dim=513, features=1, length=1))
    with pytest.raises(ValueError, match="up to 512 channels; use implementation='torch'"):
        query_key(*wide, implementation="triton")


@on_a_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("dim", "features"), [(80, 64), (128, 64), (160, 96), (60, 30), (512, 128)]
)
@pytest.mark.parametrize("length", [1, 1213])
def test_larger_sizes(dtype, dim, features, length):
    check(case(dtype, 4, length, dim, features))
