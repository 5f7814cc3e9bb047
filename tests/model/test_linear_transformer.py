"""Normalised linear attention against its formula, token by token."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from chela.mixers import LinearTransformerConfig, LinearTransformerMixer
from chela.mixers.linear_transformer import elu1
from chela.testing import DIM
from tests.model.baseline_variants import make_baseline
from tests.model.test_transformer import turned


def formula(mixer: LinearTransformerMixer, x: torch.Tensor, heads: int, causal: bool, turn: bool):
    """One sequence (L, D), as a weighted mean per token; only the numerator is turned."""
    q, k, v = (x @ mixer.qkv.weight.T + mixer.qkv.bias).chunk(3, dim=-1)
    q, k = F.elu(q) + 1, F.elu(k) + 1
    d = q.shape[-1] // heads
    rows = []
    for t in range(len(x)):
        row = []
        for head in range(heads):
            part = slice(head * d, (head + 1) * d)
            above, below = torch.zeros(d, dtype=torch.float64), 0.0
            for m in range(t + 1) if causal else range(len(x)):
                query, key = q[t, part], k[m, part]
                below = below + query @ key
                if turn:
                    query, key = turned(query, t), turned(key, m)
                above = above + (query @ key) * v[m, part]
            row.append(above / below)
        rows.append(torch.cat(row))
    return torch.stack(rows) @ mixer.out.weight.T + mixer.out.bias


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("name", "heads"), [("linear_transformer", 2), ("linear-none", 4)])
def test_the_mixer_is_its_formula(name, heads, causal):
    mixer = make_baseline(name, causal)
    x = torch.randn(13, DIM, dtype=torch.float64)
    expected = formula(mixer, x, heads, causal, turn=not name.endswith("none"))
    # the 1e-6 that keeps the denominator from 0 is not in the formula
    torch.testing.assert_close(mixer(x[None])[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_weights_sum_to_one(causal):
    """Equal values come out as they are, however long the sequence."""
    mixer = make_baseline("linear-none", causal)
    with torch.no_grad():
        mixer.qkv.weight[2 * DIM :] = 0  # v is its bias, the same for all tokens
    y = mixer(torch.randn(1, 20, DIM, dtype=torch.float64))
    expected = mixer.out(mixer.qkv.bias[2 * DIM :])
    torch.testing.assert_close(y, expected.expand_as(y), rtol=1e-4, atol=1e-5)


def test_the_feature_map_is_elu_plus_one_and_stays_positive_in_bfloat16():
    x = torch.linspace(-8, 8, 101, dtype=torch.float64)
    torch.testing.assert_close(elu1(x), F.elu(x) + 1)
    narrow = elu1(x.bfloat16()).double()
    assert (narrow > 0).all()
    torch.testing.assert_close(narrow, elu1(x.bfloat16().double()), rtol=0.01, atol=0)


def test_heads_that_do_not_fit_name_the_remedy():
    with pytest.raises(ValueError, match="set attention_dim=9"):
        LinearTransformerMixer(DIM, 9, config=LinearTransformerConfig(num_heads=3))
