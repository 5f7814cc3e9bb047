"""The token-wise MLP: plain and fused form against the naive formula, with every gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chela.kernels.token_mlp import Weights, fused, mlp, naive
from chela.kernels.tokens import NO_NORM, TokenNorm
from tests.conftest import program
from tests.kernels.comparison import on_a_gpu
from tests.kernels.mlp_case import PARTS, arguments, case, check
from tests.kernels.token_cases import DEVICE, NORMS, lengths_of, padding

pytestmark = [pytest.mark.interpreted, pytest.mark.usefixtures("poisoned_memory")]


@pytest.mark.parametrize("implementation", ["torch", "triton"])
@pytest.mark.parametrize(
    ("part", "norm", "ragged"),
    [(part, norm, True) for part in ("mlp", "glu", "gate") for norm in NORMS]
    + [(part, "layer", False) for part in PARTS],
)
def test_equals_naive(part, norm, ragged, implementation):
    leaves = case(part, norm)
    lengths = lengths_of(2, 21) if ragged else None
    check(part, norm, leaves, lengths=lengths, implementation=implementation)


@pytest.mark.parametrize(
    ("part", "norm"), [("mlp", norm) for norm in NORMS] + [("glu", "layer"), ("gate", "none")]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes(part, norm, dtype):
    check(part, norm, case(part, norm, dtype, length=50), lengths=lengths_of(2, 50))


@pytest.mark.parametrize(
    ("dim", "hidden"), [(3, 2), (16, 16), (60, 30), (80, 160), (128, 256), (130, 17)]
)
def test_any_width(dim, hidden):
    check("mlp", "layer", case("mlp", "layer", torch.float32, 1, 33, dim, hidden))
    check("gate", "none", case("gate", "none", torch.bfloat16, 1, 33, dim, hidden))


@settings(max_examples=10)
@given(
    part=st.sampled_from(PARTS),
    norm=st.sampled_from(NORMS),
    batch=st.integers(0, 3),
    length=st.integers(1, 20),
    dim=st.integers(2, 33),
    hidden=st.integers(1, 40),
    ragged=st.booleans(),
)
def test_any_sizes(part, norm, batch, length, dim, hidden, ragged):
    lengths = lengths_of(batch, length) if ragged and batch else None
    a = arguments(part, norm, case(part, norm, torch.float32, batch, length, dim, hidden))
    ours = mlp(**a, lengths=lengths, implementation="triton")
    torch.testing.assert_close(ours, naive.mlp(**a, lengths=lengths), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1e4, 1e-8])
@pytest.mark.parametrize("norm", ["none", "layer", "rms"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_values(norm, scale, dtype):
    check("mlp", norm, case("mlp", norm, dtype, scale=scale))


@pytest.mark.parametrize("part", ["mlp", "gate"])
def test_a_wide_residual_stream_stays_wide(part):
    """Under autocast x or the residual may be float32, while products run in bfloat16."""
    leaves = case(part, "layer", torch.bfloat16)
    wide = "x" if part == "mlp" else "residual"
    leaves[wide] = leaves[wide].detach().float().requires_grad_()
    out = mlp(**arguments(part, "layer", leaves), dtype=torch.bfloat16, implementation="triton")
    assert out.dtype == torch.float32
    check(part, "layer", leaves, dtype=torch.bfloat16, tolerance=5e-3)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
@pytest.mark.parametrize("part", ["mlp", "gate"])
def test_padding_may_hold_anything_and_gets_zeros(part, implementation):
    leaves = case(part, "layer", batch=4)
    lengths = lengths_of(4, 21)
    padded = padding(lengths, 21)
    options = {"lengths": lengths, "implementation": implementation}
    clean = mlp(**arguments(part, "layer", leaves), **options)
    with torch.no_grad():
        for name in ("x", "factor", "residual"):
            if name in leaves:
                leaves[name][padded] = float("nan")
    dirty = mlp(**arguments(part, "layer", leaves), **options)
    assert torch.equal(clean, dirty)
    assert not dirty[padded].any()
    for name, gradient in zip(
        leaves, torch.autograd.grad(dirty.sum(), list(leaves.values())), strict=True
    ):
        assert torch.isfinite(gradient).all(), name
        if name in ("x", "factor", "residual"):
            assert not gradient[padded].any(), name


def test_an_upstream_at_padding_reaches_no_gradient():
    leaves = case("gate", "layer", batch=4)
    lengths = lengths_of(4, 21)
    out = mlp(**arguments("gate", "layer", leaves), lengths=lengths, implementation="triton")
    clean = torch.where(padding(lengths, 21)[..., None], 0, torch.randn_like(out))
    dirty = torch.where(padding(lengths, 21)[..., None], float("nan"), clean)
    gradients = [
        torch.autograd.grad(out, list(leaves.values()), upstream, retain_graph=True)
        for upstream in (clean, dirty)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("part", ["glu", "gate"])
def test_operators_are_registered_well(part):
    """Schema, fake kernel, autograd, and tracing through them, by PyTorch's own examination."""
    a = arguments(part, "layer", case(part, "layer", length=5))
    w, norm = a["weights"], a["norm"]
    torch.use_deterministic_algorithms(False)  # opcheck compares the memory of unused outputs
    tensors = (a["x"], a["factor"], a["residual"], norm.weight, norm.bias, w.w_hidden, w.b_hidden)
    rest = (w.w_up, w.b_up, w.w_out, w.b_out, lengths_of(2, 5), torch.tensor([5], device=DEVICE))
    constants = ("layer", 1e-5, a["add_x"], 0.1, 0.2, True, torch.float32)
    torch.library.opcheck(fused._forward, (*tensors, *rest, *constants))


def test_arguments_that_do_not_fit_name_the_remedy():
    a = arguments("gate", "none", case("gate"))
    w = a["weights"]
    bad = {
        "give \\(B, L, D\\)": {"x": a["x"][0]},
        "w_hidden is .* give \\(40, 20\\)": {
            "weights": Weights(w.w_hidden[:, 1:], w.b_hidden, w.w_out, w.b_out)
        },
        "give both or neither": {
            "weights": Weights(w.w_hidden, w.b_hidden, w.w_out, w.b_out, w.w_hidden)
        },
        "have one factor": {
            "weights": Weights(w.w_hidden, w.b_hidden, w.w_out, w.b_out, w.w_hidden, w.b_hidden)
        },
        "added to one of them": {"add_x": True},
        "factor is": {"factor": a["factor"][:1]},
        "residual is": {"residual": a["residual"][:1]},
        "the norm's weight": {"norm": TokenNorm("rms", torch.ones(3, device=DEVICE))},
        "hidden_dropout=1: give": {"hidden_dropout": 1},
        "dropout=-0.5: give": {"dropout": -0.5},
    }
    for message, changed in bad.items():
        with pytest.raises(ValueError, match=message):
            mlp(**{**a, **changed})
    with pytest.raises(ValueError, match="give a weight"):
        TokenNorm("layer")
    with pytest.raises(ValueError, match="give a weight"):
        TokenNorm("none", torch.ones(3))


def test_what_the_kernels_do_not_serve_names_the_remedy():
    wide = arguments("mlp", "none", case("mlp", dim=513, hidden=2, length=1))
    with pytest.raises(ValueError, match="up to 512 channels; use implementation='torch'"):
        mlp(**wide, implementation="triton")


def test_no_norm_is_x_itself():
    x = torch.randn(2, 3, 4)
    assert torch.equal(NO_NORM.eager(x), x)


def test_every_token_wise_kernel_and_those_of_taps_compile_for_a_hopper_gpu():
    """Also without one: what the interpreter lets pass a compiler may refuse."""
    done = program("tests/kernels/compile_token_kernels_for_hopper.py", TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr
    launches = {"norm_linear": 2, "query_key": 2, "token_mlp": 4, "epilogue": 2}
    launches |= {"exponential_sums": 3, "wavelet_tree": 3}
    names = [f"{name}_{way}" for name, n in launches.items() for way in ("backward", "forward") * n]
    names += ["token_weight_gradient"] * 12 + ["exponential_sums_gradients"] * 3
    assert sorted(done.stdout.split()) == sorted(names)


@on_a_gpu
@pytest.mark.parametrize(
    ("part", "norm"), [("mlp", "layer"), ("mlp", "affine"), ("glu", "rms"), ("gate", "none")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("dim", "hidden"), [(80, 160), (128, 256), (60, 120), (512, 96)])
@pytest.mark.parametrize("length", [1, 1213])
def test_larger_sizes(part, norm, dtype, dim, hidden, length):
    leaves = case(part, norm, dtype, 4, length, dim, hidden)
    check(part, norm, leaves, lengths=lengths_of(4, length))
