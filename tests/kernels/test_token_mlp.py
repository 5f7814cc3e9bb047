"""The token-wise MLP: plain and fused form against the naive formula, with every gradient."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import token_cases
import torch
from comparison import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from token_cases import DEVICE, NORMS, TOLERANCES, gpu_only, lengths_of, padding
from torch import Tensor

from chela.kernels.token_mlp import Weights, fused, mlp, naive
from chela.kernels.tokens import NO_NORM, TokenNorm

pytestmark = pytest.mark.usefixtures("poisoned_memory")
PARTS = ["mlp", "glu", "gate", "gate-alone"]  # what of a block it is


def case(
    part: str,
    norm: str = "none",
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    length: int = 21,
    dim: int = 20,
    hidden: int = 40,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """The leaves; x is not contiguous."""
    torch.manual_seed(length * 100 + dim)
    leaves = {
        "x": torch.randn(batch, dim, length).mT * scale,
        "w_hidden": torch.randn(hidden, dim) * dim**-0.5,
        "b_hidden": torch.randn(hidden),
        "w_out": torch.randn(dim, hidden) * hidden**-0.5,
        "b_out": torch.randn(dim),
        **token_cases.norm_leaves(norm, dim),
    }
    if part == "glu":
        leaves |= {"w_up": torch.randn(hidden, dim) * dim**-0.5, "b_up": torch.randn(hidden)}
    if part.startswith("gate"):
        leaves["factor"] = torch.randn(batch, length, 2 * hidden)[..., ::2]
    if part == "gate":
        leaves["residual"] = torch.randn(batch, length, dim) * scale
    return token_cases.prepared(leaves, dtype)


def arguments(part: str, norm: str, leaves: dict[str, Tensor]) -> dict[str, Any]:
    """The leaves as arguments of ``mlp``."""
    names = [name for name in leaves if name[:2] in ("w_", "b_")]
    return {
        "x": leaves["x"],
        "weights": Weights(**{name: leaves[name] for name in names}),
        "norm": token_cases.norm_of(norm, leaves),
        "factor": leaves.get("factor"),
        "residual": leaves.get("residual"),
        "add_x": not part.startswith("gate"),
    }


def check(part: str, norm: str, leaves: dict[str, Tensor], **options: Any) -> None:
    lengths = options.pop("lengths", None)
    tolerance = options.pop("tolerance", None) or TOLERANCES[leaves["x"].dtype]
    options = {"implementation": "triton", **options}
    token_cases.check(
        lambda t: [mlp(**arguments(part, norm, t), lengths=lengths, **options)],
        lambda t: [naive.mlp(**arguments(part, norm, t), lengths=lengths)],
        leaves,
        tolerance,
    )


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


@settings(max_examples=10, deadline=None)
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


class TestDropout:
    """The masks: their mean, their independence, and that backward has forward's."""

    tokens, dim, p = 160, 60, 0.3

    def mask(self, place: str, seed: int, upstream: Tensor | None = None) -> list[Tensor]:
        """Where (1, tokens, dim) something is kept, from the output; and a bias's gradient."""
        torch.manual_seed(seed)
        zeros = torch.zeros(self.dim, self.dim, device=DEVICE)
        ones = torch.ones(self.dim, device=DEVICE, requires_grad=True)
        x = torch.zeros(1, self.tokens, self.dim, device=DEVICE)
        if place == "dropout":  # y = dropout(b_out)
            weights = Weights(zeros, ones.detach(), zeros, ones)
        else:  # y = dropout(silu(b_hidden))
            weights = Weights(zeros, ones, torch.eye(self.dim, device=DEVICE), zeros[0])
        out = mlp(x, weights, **{place: self.p}, implementation="triton")
        upstream = torch.ones_like(out) if upstream is None else upstream
        return [out.detach(), *torch.autograd.grad(out, ones, upstream)]

    @pytest.mark.parametrize("place", ["dropout", "hidden_dropout"])
    def test_values_and_mean(self, place):
        out, _ = self.mask(place, 0)
        kept = out[out != 0]
        value = 1 / (1 - self.p) * (1 if place == "dropout" else torch.sigmoid(torch.ones(())))
        torch.testing.assert_close(kept, torch.full_like(kept, float(value)))
        deviation = (self.p * (1 - self.p) / out.numel()) ** 0.5
        assert abs((out == 0).float().mean() - self.p) < 5 * deviation

    @pytest.mark.parametrize("place", ["dropout", "hidden_dropout"])
    def test_backward_has_the_mask_of_forward(self, place):
        upstream = torch.randn(1, self.tokens, self.dim, device=DEVICE)
        out, gradient = self.mask(place, 0, upstream)
        sigmoid = torch.sigmoid(torch.ones(()))
        slope = 1 if place == "dropout" else sigmoid * (2 - sigmoid)
        expected = ((out != 0) * upstream).double().sum((0, 1)) * slope / (1 - self.p)
        assert_close(gradient, expected, 1e-5)

    def test_tokens_channels_places_and_seeds_are_independent(self):
        masks = {
            (place, seed): (self.mask(place, seed)[0][0] != 0).double() - (1 - self.p)
            for place, seed in (("dropout", 0), ("dropout", 1), ("hidden_dropout", 0))
        }
        one = masks["dropout", 0]
        others = {
            "next token": one.roll(1, 0),
            "next channel": one.roll(1, 1),
            "next but seven channels": one.roll(8, 1),
            "hidden": masks["hidden_dropout", 0],
            "seed": masks["dropout", 1],
        }
        deviation = self.p * (1 - self.p) / one.numel() ** 0.5
        for name, other in others.items():
            assert abs((one * other).mean()) < 5 * deviation, name

    @pytest.mark.parametrize("place", ["dropout", "hidden_dropout"])
    def test_tied_is_one_draw_for_a_sequences_channel(self, place):
        """All tokens alike, sequences and channels not; backward has the mask of forward."""
        torch.manual_seed(0)
        zeros, ones = torch.zeros(60, 60, device=DEVICE), torch.ones(60, device=DEVICE)
        ones.requires_grad_()
        matrix = zeros if place == "dropout" else torch.eye(60, device=DEVICE)
        biases = (zeros[0], ones) if place == "dropout" else (ones, zeros[0])
        weights = Weights(zeros, biases[0], matrix, biases[1])
        x, upstream = torch.zeros(5, 21, 60, device=DEVICE), torch.randn(5, 21, 60, device=DEVICE)
        options = {place: 0.5, "tied_dropout": True}
        for implementation in ("triton", "torch"):
            out = mlp(x, weights, **options, implementation=implementation)
            kept = out[:, 0] != 0  # (5, 60)
            assert torch.equal(out != 0, kept[:, None].expand_as(out))
            assert 0.3 < kept.float().mean() < 0.7
            assert len(kept.unique(dim=0)) == 5
            (gradient,) = torch.autograd.grad(out, ones, upstream)
            sigmoid = torch.sigmoid(torch.ones(()))
            slope = 1 if place == "dropout" else sigmoid * (2 - sigmoid)
            expected = (kept[:, None] * upstream).double().sum((0, 1)) * slope * 2
            assert_close(gradient, expected, 1e-5)

    def test_the_generator_decides(self):
        first, again, other = (self.mask("dropout", seed)[0] for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_with_everything_else_on(self):
        """Gradients are those of the formula with forward's masks, found by differences."""
        leaves = case("glu", "layer", length=5, hidden=8, dim=6)
        torch.manual_seed(0)
        direction = {name: torch.randn_like(t) for name, t in leaves.items()}

        def at(step: float) -> Tensor:
            torch.manual_seed(7)
            moved = {name: t + step * direction[name] for name, t in leaves.items()}
            options = {"hidden_dropout": 0.4, "dropout": 0.4, "implementation": "triton"}
            return mlp(**arguments("glu", "layer", moved), **options).double().square().sum()

        gradients = torch.autograd.grad(at(0.0), list(leaves.values()))
        slope = sum(
            (g * d).double().sum() for g, d in zip(gradients, direction.values(), strict=True)
        )
        with torch.no_grad():
            expected = (at(1e-3) - at(-1e-3)) / 2e-3
        assert_close(slope, expected, 2e-3)  # what a difference in float32 can tell


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


@pytest.mark.parametrize("part", ["glu", "gate"])
def test_compiles_as_one_graph(part):
    lengths = lengths_of(2, 21)
    token_cases.check_compiled(
        lambda t: [mlp(**arguments(part, "layer", t), lengths=lengths, implementation="triton")],
        case(part, "layer"),
    )


def test_activation_checkpointing():
    token_cases.check_checkpointed(
        lambda t: [mlp(**arguments("glu", "layer", t), dropout=0.3, implementation="triton")],
        case("glu", "layer"),
    )


def test_two_runs_agree_to_the_bit():
    token_cases.check_repeatable(
        lambda t: [mlp(**arguments("gate", "layer", t), implementation="triton")],
        case("gate", "layer", torch.bfloat16, length=100),
    )


def test_autocast_changes_nothing():
    leaves = case("mlp", "layer")
    everything = []
    for enabled in (False, True):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=enabled):
            out = mlp(**arguments("mlp", "layer", leaves), implementation="triton")
            gradients = torch.autograd.grad(out.sum(), list(leaves.values()))
        everything.append([out, *gradients])
    assert all(torch.equal(a, b) for a, b in zip(*everything, strict=True))


def test_a_second_derivative_is_refused():
    leaves = case("mlp")
    out = mlp(**arguments("mlp", "none", leaves), implementation="triton")
    (gradient,) = torch.autograd.grad(out.sum(), leaves["x"], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative; use implementation='torch'"):
        gradient.sum().backward()


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
    double = {name: t.double() for name, t in case("mlp").items()}
    with pytest.raises(ValueError, match="float32; use implementation='torch'"):
        mlp(**arguments("mlp", "none", double), implementation="triton")


def test_no_norm_is_x_itself():
    x = torch.randn(2, 3, 4)
    assert torch.equal(NO_NORM.eager(x), x)


def test_every_token_wise_kernel_compiles_for_a_hopper_gpu():
    """Also without one: what the interpreter lets pass a compiler may refuse."""
    script = Path(__file__).with_name("compile_token_kernels_for_hopper.py")
    root = script.parents[2]
    done = subprocess.run(
        [sys.executable, script],
        cwd=root,
        env={**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    launches = {"norm_linear": 2, "query_key": 2, "token_mlp": 4}
    names = [f"{name}_{way}" for name, n in launches.items() for way in ("backward", "forward") * n]
    names += ["token_weight_gradient"] * 12
    assert sorted(done.stdout.split()) == sorted(names)


def gpu_case(part: str, norm: str, dtype: torch.dtype, dim: int, hidden: int, length: int) -> None:
    leaves = case(part, norm, dtype, 4, length, dim, hidden)
    check(part, norm, leaves, lengths=lengths_of(4, length))


@pytest.mark.parametrize(
    ("part", "norm"), [("mlp", "layer"), ("mlp", "affine"), ("glu", "rms"), ("gate", "none")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("dim", "hidden"), [(80, 160), (128, 256), (60, 120), (512, 96)])
@pytest.mark.parametrize("length", [1, 1213])
class TestOnTheGpu:
    """Larger sizes, compiled."""

    pytestmark = gpu_only

    def test_equals_naive(self, part, norm, dtype, dim, hidden, length):
        gpu_case(part, norm, dtype, dim, hidden, length)
