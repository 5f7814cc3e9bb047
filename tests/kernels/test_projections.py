"""Norm and linear map, queries and keys: plain and fused form against the naive formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chela.kernels.norm_linear import fused as fused_norm_linear
from chela.kernels.norm_linear import naive as naive_norm_linear
from chela.kernels.norm_linear import norm_linear
from chela.kernels.query_key import Affines, query_key
from chela.kernels.query_key import fused as fused_query_key
from chela.kernels.query_key import naive as naive_query_key
from tests.kernels import token_cases
from tests.kernels.comparison import assert_close, on_a_gpu
from tests.kernels.token_cases import NORMS, TOLERANCES, lengths_of, padding

pytestmark = [pytest.mark.interpreted, pytest.mark.usefixtures("poisoned_memory")]
AFFINES = ["scale_q", "shift_q", "scale_k", "shift_k"]
KINDS = [*NORMS, "query_key"]  # a norm's name is that of norm_linear with it
Leaves = dict[str, Tensor]


def case(
    kind: str,
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    length: int = 21,
    dim: int = 20,
    features: int = 40,
    scale: float = 1.0,
) -> Leaves:
    """The leaves; x is not contiguous."""
    torch.manual_seed(length * 100 + dim)
    leaves = {
        "x": torch.randn(batch, dim, length).mT * scale,
        "weight": torch.randn(features, dim) * dim**-0.5,
        "bias": torch.randn(features),
    }
    if kind == "query_key":
        leaves |= {name: torch.randn(features) for name in AFFINES}
    else:
        leaves |= token_cases.norm_leaves(kind, dim)
    return token_cases.prepared(leaves, dtype)


def call(kind: str, leaves: Leaves, naive: bool = False, **options: Any) -> tuple[Tensor, ...]:
    """What the operation, by Triton unless the options say otherwise, makes of the leaves."""
    first = (leaves["x"], leaves["weight"], leaves["bias"])
    options = options if naive else {"implementation": "triton", **options}
    if kind == "query_key":
        form = naive_query_key.query_key if naive else query_key
        return form(*first, Affines(*[leaves[name] for name in AFFINES]), **options)
    form = naive_norm_linear.norm_linear if naive else norm_linear
    return form(*first, norm=token_cases.norm_of(kind, leaves), **options)


def check(kind: str, leaves: Leaves, tolerance: float | None = None, **options: Any) -> None:
    ragged = {name: options.pop(name) for name in ["lengths"] if name in options}
    token_cases.check(
        lambda t: call(kind, t, **ragged, **options),
        lambda t: call(kind, t, naive=True, **ragged),
        leaves,
        tolerance or TOLERANCES[leaves["x"].dtype],
    )


@pytest.mark.parametrize("implementation", ["torch", "triton"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_naive(kind, implementation):
    check(kind, case(kind), implementation=implementation)
    if kind != "query_key":
        check(kind, case(kind), implementation=implementation, lengths=lengths_of(2, 21))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes(kind, dtype):
    options = {} if kind == "query_key" else {"lengths": lengths_of(2, 50)}
    check(kind, case(kind, dtype, length=50), **options)


@pytest.mark.parametrize("kind", ["layer", "query_key"])
@pytest.mark.parametrize(("dim", "features"), [(3, 2), (60, 30), (80, 160), (128, 256), (130, 17)])
def test_any_width(kind, dim, features):
    check(kind, case(kind, torch.float32, 1, 33, dim, features))


@settings(max_examples=20)
@given(
    kind=st.sampled_from(KINDS),
    batch=st.integers(0, 3),
    length=st.integers(1, 20),
    dim=st.integers(2, 33),
    features=st.integers(1, 40),
)
def test_any_sizes(kind, batch, length, dim, features):
    leaves = case(kind, torch.float32, batch, length, dim, features)
    options = {} if kind == "query_key" or not batch else {"lengths": lengths_of(batch, length)}
    expected = call(kind, leaves, naive=True, **options)
    for mine, true in zip(call(kind, leaves, **options), expected, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1e4, 1e-8])
@pytest.mark.parametrize("kind", ["none", "layer", "rms", "query_key"])
def test_extreme_values(kind, scale):
    check(kind, case(kind, torch.bfloat16, scale=scale))


@pytest.mark.parametrize("kind", ["layer", "query_key"])
def test_a_token_disturbs_no_other(kind):
    leaves = case(kind)
    clean = call(kind, leaves)
    with torch.no_grad():
        leaves["x"][0, 3] = float("nan")
    for one, other in zip(clean, call(kind, leaves), strict=True):
        assert other[0, 3].isnan().all()
        assert torch.equal(one[0, 4:], other[0, 4:])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("kind", ["layer", "query_key"])
def test_a_wide_residual_stream_gives_narrow_activations(kind):
    """Under autocast x may be float32, while products run in bfloat16."""
    rounded = {name: t.detach().bfloat16().float() for name, t in case(kind).items()}
    leaves = {name: t.requires_grad_() for name, t in rounded.items()}
    narrow = {"dtype": torch.bfloat16}
    assert {out.dtype for out in call(kind, leaves, **narrow)} == {torch.bfloat16}
    check(kind, leaves, tolerance=5e-3, **narrow)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_padding_may_hold_anything(implementation):
    leaves = case("layer", batch=4)
    lengths = lengths_of(4, 21)
    padded = padding(lengths, 21)
    options = {"lengths": lengths, "implementation": implementation}
    clean = call("layer", leaves, **options)
    with torch.no_grad():
        leaves["x"][padded] = float("nan")
    dirty = call("layer", leaves, **options)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
    assert not dirty[0][padded].any()
    gradients = torch.autograd.grad(dirty[0].sum() + dirty[1].sum(), list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        assert torch.isfinite(gradient).all(), name
        if name == "x":
            assert not gradient[padded].any()


@pytest.mark.parametrize("which", [0, 1])
def test_one_result_alone_has_gradients(which):
    leaves = case("layer")
    wide = {name: t.detach().double().requires_grad_() for name, t in leaves.items()}
    ours, reference = call("layer", leaves)[which], call("layer", wide, naive=True)[which]
    upstream = torch.randn_like(ours)
    names = ["x", "norm_weight"]
    mine = torch.autograd.grad(ours, [leaves[n] for n in names], upstream)
    true = torch.autograd.grad(reference, [wide[n] for n in names], upstream.double())
    for one, other in zip(mine, true, strict=True):
        assert_close(one, other, 1e-5)


def test_operators_are_registered_well():
    """Schema, fake kernel, autograd, and tracing through them, by PyTorch's own examination."""
    torch.use_deterministic_algorithms(False)  # opcheck compares the memory of unused outputs
    leaves = case("layer", length=5)
    tensors = [leaves[n] for n in ("x", "norm_weight", "norm_bias", "weight", "bias")]
    rest = (lengths_of(2, 5), "layer", 1e-5, torch.float32)
    torch.library.opcheck(fused_norm_linear._forward, (*tensors, *rest))
    tensors = [*case("query_key", length=5).values()]
    torch.library.opcheck(fused_query_key._forward, (*tensors, torch.float32))


@pytest.mark.parametrize("kind", ["layer", "query_key"])
def test_arguments_that_do_not_fit_name_the_remedy(kind):
    leaves = case(kind)
    narrow = {"x": leaves["x"][..., 1:], "weight": leaves["weight"][:, 1:]}
    wrong: dict[str, Leaves] = {
        r"weight as \(N, D\)": {"weight": narrow["weight"]},
        r"bias is .* give \(N,\) = \(40,\)": {"bias": leaves["bias"][1:]},
    }
    if kind == "query_key":
        wrong[r"scale_k is .* give \(N,\) = \(40,\)"] = {"scale_k": leaves["scale_k"][1:]}
    else:
        wrong["the norm's weight"] = narrow
    for message, changed in wrong.items():
        with pytest.raises(ValueError, match=message):
            call(kind, leaves | changed)
    with pytest.raises(ValueError, match="up to 512 channels; use implementation='torch'"):
        call(kind, case(kind, dim=513, features=1, length=1))


@on_a_gpu
@pytest.mark.parametrize("kind", ["layer", "rms", "query_key"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("dim", "features"), [(80, 160), (80, 64), (128, 256), (60, 120), (512, 1024)]
)
@pytest.mark.parametrize("length", [1, 1213])
def test_larger_sizes(kind, dtype, dim, features, length):
    options = {} if kind == "query_key" else {"lengths": lengths_of(4, length)}
    check(kind, case(kind, dtype, 4, length, dim, features), **options)
