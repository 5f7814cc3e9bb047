"""Dropout in the token-wise MLP: its mean, its independence, and that backward has its mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from chela.kernels.token_mlp import Weights, mlp
from tests.kernels.comparison import assert_close
from tests.kernels.mlp_case import arguments, case
from tests.kernels.token_cases import DEVICE

pytestmark = [pytest.mark.interpreted, pytest.mark.usefixtures("poisoned_memory")]
TOKENS, DIM, P = 160, 60, 0.3
PLACES = ["dropout", "hidden_dropout"]


def dropped(
    place: str,
    seed: int,
    upstream: Tensor | None = None,
    sequences: int = 1,
    **options: Any,
) -> list[Tensor]:
    """An output that is 0 just where something is dropped, and the gradient of a bias of ones.

    Args:
        place: of the dropout.
        seed: of its masks.
        upstream: the output's gradient, (sequences, TOKENS, DIM); None: ones.
        sequences: in the batch.
        options: further ones of ``mlp``.

    Returns:
        The output (sequences, TOKENS, DIM) and the gradient (DIM,).
    """
    torch.manual_seed(seed)
    zeros = torch.zeros(DIM, DIM, device=DEVICE)
    ones = torch.ones(DIM, device=DEVICE, requires_grad=True)
    x = torch.zeros(sequences, TOKENS, DIM, device=DEVICE)
    if place == "dropout":  # y = dropout(b_out)
        weights = Weights(zeros, ones.detach(), zeros, ones)
    else:  # y = dropout(silu(b_hidden))
        weights = Weights(zeros, ones, torch.eye(DIM, device=DEVICE), zeros[0])
    out = mlp(x, weights, **{place: P, "implementation": "triton", **options})
    upstream = torch.ones_like(out) if upstream is None else upstream
    return [out.detach(), *torch.autograd.grad(out, ones, upstream)]


def gradient_with_mask(place: str, kept: Tensor, upstream: Tensor) -> Tensor:
    """What ``dropped`` has as the bias's gradient (DIM,), if backward too keeps ``kept``."""
    sigmoid = torch.sigmoid(torch.ones(()))
    slope = 1 if place == "dropout" else sigmoid * (2 - sigmoid)
    return (kept * upstream).double().sum((0, 1)) * slope / (1 - P)


@pytest.mark.parametrize("place", PLACES)
def test_values_and_mean(place):
    out, _ = dropped(place, 0)
    kept = out[out != 0]
    value = 1 / (1 - P) * (1 if place == "dropout" else torch.sigmoid(torch.ones(())))
    torch.testing.assert_close(kept, torch.full_like(kept, float(value)))
    deviation = (P * (1 - P) / out.numel()) ** 0.5
    assert abs((out == 0).float().mean() - P) < 5 * deviation


@pytest.mark.parametrize("place", PLACES)
def test_backward_has_the_mask_of_forward(place):
    upstream = torch.randn(1, TOKENS, DIM, device=DEVICE)
    out, gradient = dropped(place, 0, upstream)
    assert_close(gradient, gradient_with_mask(place, out != 0, upstream), 1e-5)


def test_tokens_channels_places_and_seeds_are_independent():
    masks = {
        (place, seed): (dropped(place, seed)[0][0] != 0).double() - (1 - P)
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
    deviation = P * (1 - P) / one.numel() ** 0.5
    for name, other in others.items():
        assert abs((one * other).mean()) < 5 * deviation, name


@pytest.mark.parametrize("implementation", ["triton", "torch"])
@pytest.mark.parametrize("place", PLACES)
def test_tied_is_one_draw_for_a_sequences_channel(place, implementation):
    """All tokens alike, sequences and channels not; backward has the mask of forward."""
    upstream = torch.randn(5, TOKENS, DIM, device=DEVICE)
    options = {"tied_dropout": True, "implementation": implementation}
    out, gradient = dropped(place, 0, upstream, sequences=5, **options)
    kept = out[:, 0] != 0  # (5, DIM)
    assert torch.equal(out != 0, kept[:, None].expand_as(out))
    deviation = (P * (1 - P) / kept.numel()) ** 0.5
    assert abs(kept.float().mean() - (1 - P)) < 5 * deviation
    assert len(kept.unique(dim=0)) == 5
    assert_close(gradient, gradient_with_mask(place, kept[:, None], upstream), 1e-5)


def test_the_generator_decides():
    first, again, other = (dropped("dropout", seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_with_everything_else_on():
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
    slope = sum((g * d).double().sum() for g, d in zip(gradients, direction.values(), strict=True))
    with torch.no_grad():
        expected = (at(1e-3) - at(-1e-3)) / 2e-3
    assert_close(slope, expected, 2e-3)  # what a difference in float32 can tell
