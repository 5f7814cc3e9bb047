"""Softmax attention against its formula, token by token; rotary positions against theirs."""

from __future__ import annotations

import math

import pytest
import torch

from chela.mixers import TransformerConfig, TransformerMixer
from chela.mixers.positions import rotate
from chela.testing import DIM
from tests.model.baseline_variants import make_baseline


def turned(vector: torch.Tensor, position: int) -> torch.Tensor:
    """Each pair (p, p + d/2) as a complex number, times exp(i position 10000^(-2p/d))."""
    half = len(vector) // 2
    frequency = 10000 ** (-2 * torch.arange(half, dtype=torch.float64) / len(vector))
    pairs = torch.complex(vector[:half], vector[half:])
    pairs = pairs * torch.exp(1j * position * frequency)
    return torch.cat([pairs.real, pairs.imag])


def formula(mixer: TransformerMixer, x: torch.Tensor, heads: int, causal: bool, turn: bool):
    """One sequence (L, D): for each head and token a softmax over what it may see."""
    q, k, v = (x @ mixer.qkv.weight.T + mixer.qkv.bias).chunk(3, dim=-1)
    d = q.shape[-1] // heads
    rows = []
    for t in range(len(x)):
        row = []
        for head in range(heads):
            part = slice(head * d, (head + 1) * d)
            seen = range(t + 1) if causal else range(len(x))
            query = turned(q[t, part], t) if turn else q[t, part]
            keys = [turned(k[m, part], m) if turn else k[m, part] for m in seen]
            scores = torch.stack([query @ key for key in keys]) / math.sqrt(d)
            weights = scores.exp() / scores.exp().sum()
            row.append(sum(w * v[m, part] for w, m in zip(weights, seen, strict=True)))
        rows.append(torch.cat(row))
    return torch.stack(rows) @ mixer.out.weight.T + mixer.out.bias


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("name", "heads"), [("transformer", 2), ("transformer-none", 4), ("transformer-wide", 3)]
)
def test_the_mixer_is_its_formula(name, heads, causal):
    mixer = make_baseline(name, causal)
    x = torch.randn(7, DIM, dtype=torch.float64)
    expected = formula(mixer, x, heads, causal, turn=not name.endswith("none"))
    torch.testing.assert_close(mixer(x[None])[0], expected)


def test_products_of_rotated_vectors_depend_on_the_distance_alone():
    q, k = torch.randn(2, 6, dtype=torch.float64)
    q, k = (rotate(each.expand(1, 40, 1, 6))[0, :, 0] for each in (q, k))
    products = q @ k.T
    for distance in (-7, 0, 13):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert not torch.isclose(products[0, 0], products[0, 1])


def test_rotation_keeps_positions_apart_in_bfloat16():
    x = torch.randn(1, 5000, 1, 8)
    wide = rotate(x)
    narrow = rotate(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    assert (narrow.float() - wide).norm() / wide.norm() < 0.005  # roundings, not wrong angles


@pytest.mark.parametrize(
    ("choices", "remedy"),
    [
        ({"num_heads": 3}, "set attention_dim=9, or another num_heads"),
        ({"num_heads": 8}, "set attention_dim=16, or positions=none"),
    ],
)
def test_heads_that_do_not_fit_name_the_remedy(choices, remedy):
    with pytest.raises(ValueError, match=remedy):
        TransformerMixer(DIM, 9, config=TransformerConfig(**choices))
