"""Mega against its equations, with the moving average as a recurrence."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from chela.mixers import MegaConfig
from chela.mixers.mega import MegaMixer, RotaryBias, SimpleBias, toeplitz
from chela.testing import DIM
from tests.model.baseline_variants import BASELINES, make_baseline
from tests.model.test_transformer import turned

NAMES = [name for name in BASELINES if name.startswith("mega")]


def moving_average(mixer: MegaMixer, x: torch.Tensor, direction: int) -> torch.Tensor:
    """Equations 2 and 3: h = alpha * (beta x) + (1 - alpha * delta) * h, y = eta . h / sqrt(N)."""
    alpha = mixer.ema.alpha[direction].sigmoid()  # (D, N)
    keep = 1 - alpha * mixer.ema.delta[direction].sigmoid()
    h = torch.zeros_like(alpha)
    rows = []
    for token in x:
        h = alpha * mixer.ema.beta[direction] * token[:, None] + keep * h
        rows.append((mixer.ema.eta[direction] * h).sum(-1) / math.sqrt(alpha.shape[-1]))
    return torch.stack(rows)


def bias_between(mixer: MegaMixer, query: int, key: int) -> torch.Tensor:
    if isinstance(mixer.bias, SimpleBias):
        return mixer.bias.table[mixer.bias.window - 1 + key - query]
    return turned(mixer.bias.a, query) @ turned(mixer.bias.b, key)


def formula(mixer: MegaMixer, x: torch.Tensor, causal: bool) -> torch.Tensor:
    """One sequence (L, D); what the block adds to x, so that the sum is the gated mix."""
    config = mixer.config
    m = moving_average(mixer, x, 0)
    if not causal:  # lag 0 belongs to the first direction
        backward = moving_average(mixer, x.flip(0), 1).flip(0)
        m = m + torch.cat([backward[1:], torch.zeros(1, DIM, dtype=torch.float64)])
    if config.ema_silu:
        m = F.silu(m + mixer.omega * x)
    z = F.silu(mixer.shared(m))
    q, k = mixer.scale_q * z + mixer.shift_q, mixer.scale_k * z + mixer.shift_k
    v = F.silu(mixer.value(x))
    rows = []
    for t in range(len(x)):
        size = config.chunk_size or len(x)
        start = t // size * size
        seen = range(start, t + 1 if causal else min(start + size, len(x)))
        scores = torch.stack([q[t] @ k[n] for n in seen])
        bias = torch.stack([bias_between(mixer, t - start, n - start) for n in seen])
        if config.attention == "softmax":
            weights = (scores / math.sqrt(config.qk_dim) + bias).softmax(0)
        elif config.attention == "relu2":
            weights = (scores / len(seen) + bias).clamp(min=0) ** 2
        else:
            shifted = scores / len(seen) + bias - math.sqrt(1 / 2)
            weights = 0.5 * (1 + torch.erf(shifted / (math.sqrt(1 / (4 * math.pi)) * 2**0.5)))
        rows.append(sum(w * v[n] for w, n in zip(weights, seen, strict=True)))
    reset, update = F.silu(mixer.reset(m)), torch.sigmoid(mixer.update(m))
    candidate = F.silu(mixer.candidate(m) + mixer.out(reset * torch.stack(rows)))
    return update * candidate + (1 - update) * x


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_mixer_is_its_formula(name, causal):
    mixer = make_baseline(name, causal)
    x = torch.randn(13, DIM, dtype=torch.float64)
    torch.testing.assert_close(x + mixer(x[None])[0], formula(mixer, x, causal))


def test_a_chunk_as_long_as_the_sequence_is_the_whole():
    x = torch.randn(2, 9, DIM, dtype=torch.float64)
    lengths = torch.tensor([9, 4])
    whole = make_baseline("mega", max_length=9)(x, lengths)
    torch.testing.assert_close(make_baseline("mega", max_length=9, chunk_size=9)(x, lengths), whole)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_biases_are_laid_out_by_distance(size):
    simple, rotary = SimpleBias(7), RotaryBias(6).double()
    table = toeplitz(simple(size))
    products = toeplitz(rotary(size))
    for i in range(size):
        for j in range(size):
            assert table[i, j] == simple.table[6 + j - i]
            expected = turned(rotary.a, i) @ turned(rotary.b, j)
            torch.testing.assert_close(products[i, j], expected)


def test_laplace_touches_the_squared_relu_where_the_paper_says():
    """At sqrt(1/2) both functions have the value 1/2 and the slope sqrt(2)."""
    x = torch.tensor(math.sqrt(0.5), dtype=torch.float64, requires_grad=True)
    mixer = make_baseline("mega-laplace")
    for attention in ("laplace", "relu2"):
        mixer.config = MegaConfig(attention=attention, qk_dim=4)
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        weight = mixer._weighed(0 * one, one, one, x.view(1, 1), None).squeeze()
        (slope,) = torch.autograd.grad(weight, x)
        assert weight.item() == pytest.approx(0.5)
        assert slope.item() == pytest.approx(math.sqrt(2))


def test_an_odd_rotary_bias_names_the_remedy():
    with pytest.raises(ValueError, match="set qk_dim=6, or position_bias=simple"):
        MegaConfig(qk_dim=5, position_bias="rotary")
