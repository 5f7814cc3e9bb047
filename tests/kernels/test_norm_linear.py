"""Norm, linear map and SiLU: plain and fused form against the naive formula, every gradient."""

from __future__ import annotations

from typing import Any

import pytest
import token_cases
import torch
from comparison import assert_close, on_a_gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from token_cases import NORMS, TOLERANCES, lengths_of, padding
from torch import Tensor

from chela.kernels.norm_linear import fused, naive, norm_linear

pytestmark = [pytest.mark.interpreted, pytest.mark.usefixtures("poisoned_memory")]


def case(
    norm: str,
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    length: int = 21,
    dim: int = 20,
    features: int = 40,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """The leaves; x is not contiguous."""
    torch.manual_seed(length * 100 + dim)
    leaves = {
        "x": torch.randn(batch, dim, length).mT * scale,
        "weight": torch.randn(features, dim) * dim**-0.5,
        "bias": torch.randn(features),
        **token_cases.norm_leaves(norm, dim),
    }
    return token_cases.prepared(leaves, dtype)


def arguments(norm: str, leaves: dict[str, Tensor]) -> dict[str, Any]:
    names = ("x", "weight", "bias")
    return {name: leaves[name] for name in names} | {"norm": token_cases.norm_of(norm, leaves)}


def check(norm: str, leaves: dict[str, Tensor], **options: Any) -> None:
    lengths = options.pop("lengths", None)
    tolerance = options.pop("tolerance", None) or TOLERANCES[leaves["x"].dtype]
    options = {"implementation": "triton", **options}
    token_cases.check(
        lambda t: norm_linear(**arguments(norm, t), lengths=lengths, **options),
        lambda t: naive.norm_linear(**arguments(norm, t), lengths=lengths),
        leaves,
        tolerance,
    )


@pytest.mark.parametrize("implementation", ["torch", "triton"])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_equals_naive(norm, ragged, implementation):
    lengths = lengths_of(2, 21) if ragged else None
    check(norm, case(norm), lengths=lengths, implementation=implementation)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes(norm, dtype):
    check(norm, case(norm, dtype, length=50), lengths=lengths_of(2, 50))


@pytest.mark.parametrize(("dim", "features"), [(3, 2), (60, 30), (80, 160), (128, 256), (130, 17)])
def test_any_width(dim, features):
    check("layer", case("layer", torch.float32, 1, 33, dim, features))


@settings(max_examples=10, deadline=None)
@given(
    norm=st.sampled_from(NORMS),
    batch=st.integers(0, 3),
    length=st.integers(1, 20),
    dim=st.integers(2, 33),
    features=st.integers(1, 40),
)
def test_any_sizes(norm, batch, length, dim, features):
    leaves = case(norm, torch.float32, batch, length, dim, features)
    lengths = lengths_of(batch, length) if batch else None
    for mine, true in zip(
        norm_linear(**arguments(norm, leaves), lengths=lengths, implementation="triton"),
        naive.norm_linear(**arguments(norm, leaves), lengths=lengths),
        strict=True,
    ):
        torch.testing.assert_close(mine, true, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1e4, 1e-8])
@pytest.mark.parametrize("norm", ["none", "layer", "rms"])
def test_extreme_values(norm, scale):
    check(norm, case(norm, torch.bfloat16, scale=scale))


def test_a_wide_residual_stream_gives_narrow_activations():
    """Under autocast x may be float32, while products run in bfloat16."""
    leaves = case("layer")
    leaves["x"] = leaves["x"].detach().bfloat16().float().requires_grad_()
    h, y = norm_linear(**arguments("layer", leaves), dtype=torch.bfloat16, implementation="triton")
    assert h.dtype == y.dtype == torch.bfloat16
    rounded = {name: t.detach().bfloat16().float().requires_grad_() for name, t in leaves.items()}
    check("layer", rounded, dtype=torch.bfloat16, tolerance=5e-3)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_padding_may_hold_anything(implementation):
    leaves = case("layer", batch=4)
    lengths = lengths_of(4, 21)
    padded = padding(lengths, 21)
    options = {"lengths": lengths, "implementation": implementation}
    clean = norm_linear(**arguments("layer", leaves), **options)
    with torch.no_grad():
        leaves["x"][padded] = float("nan")
    dirty = norm_linear(**arguments("layer", leaves), **options)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
    assert not dirty[0][padded].any()
    total = dirty[0].sum() + dirty[1].sum()
    for name, gradient in zip(
        leaves, torch.autograd.grad(total, list(leaves.values())), strict=True
    ):
        assert torch.isfinite(gradient).all(), name
        if name == "x":
            assert not gradient[padded].any()


@pytest.mark.parametrize("which", [0, 1])
def test_one_result_alone_has_gradients(which):
    leaves = case("layer")
    wide = {name: t.detach().double().requires_grad_() for name, t in leaves.items()}
    ours = norm_linear(**arguments("layer", leaves), implementation="triton")[which]
    reference = naive.norm_linear(**arguments("layer", wide))[which]
    names = ["x", "norm_weight"]
    upstream = torch.randn_like(ours)
    for mine, true in zip(
        torch.autograd.grad(ours, [leaves[n] for n in names], upstream),
        torch.autograd.grad(reference, [wide[n] for n in names], upstream.double()),
        strict=True,
    ):
        assert_close(mine, true, 1e-5)


def test_operators_are_registered_well():
    """Schema, fake kernel, autograd, and tracing through them, by PyTorch's own examination."""
    leaves = case("layer", length=5)
    torch.use_deterministic_algorithms(False)  # opcheck compares the memory of unused outputs
    tensors = [leaves[n] for n in ("x", "norm_weight", "norm_bias", "weight", "bias")]
    torch.library.opcheck(
        fused._forward, (*tensors, lengths_of(2, 5), "layer", 1e-5, torch.float32)
    )


def test_arguments_that_do_not_fit_name_the_remedy():
    a = arguments("layer", case("layer"))
    for message, changed in {
        r"weight as \(N, D\)": {"weight": a["weight"][:, 1:]},
        r"bias is .* give \(N,\) = \(40,\)": {"bias": a["bias"][1:]},
        "the norm's weight": {"x": a["x"][..., 1:], "weight": a["weight"][:, 1:]},
    }.items():
        with pytest.raises(ValueError, match=message):
            norm_linear(**{**a, **changed})
    wide = arguments("none", case("none", dim=513, features=1, length=1))
    with pytest.raises(ValueError, match="up to 512 channels; use implementation='torch'"):
        norm_linear(**wide, implementation="triton")


@on_a_gpu
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("dim", "features"), [(80, 160), (128, 256), (60, 120), (512, 1024)])
@pytest.mark.parametrize("length", [1, 1213])
def test_larger_sizes(norm, dtype, dim, features, length):
    check(norm, case(norm, dtype, 4, length, dim, features), lengths=lengths_of(4, length))
