"""Linear attention as the model uses it: queries and keys, heads, norm per head, gate."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels import linear_attention
from chela.kernels.choice import Implementation
from chela.kernels.precision import accumulation_dtype, without_autocast
from chela.layers.norms import RMSNorm, make_norm
from chela.mixers.chela.choices import ChelaConfig
from chela.mixers.chela.query_key import QueryKey
from chela.mixers.over_shares import Shares, before, bidirectional_attention, causal_attention
from chela.mixers.stepping import causal_only, recent

Attended = tuple[Tensor, Tensor | None]  # the output, and the state behind it, if there is one
EPS = 1e-6  # added to a squared length
HALF_LIVES = (16, 4096)  # tokens, between which the heads' memories begin


class AttentionState(NamedTuple):
    """What is known of all tokens so far."""

    products: Tensor  # (B, H, dk, dv), the sum of k^T v as far as it is not forgotten
    key: Tensor | None  # (B, 1, qk_dim), the latest token's, where keys are shifted


class Decay(nn.Module):
    """log a = -softplus(z w + b), a number in float32 per token and head: a = sigmoid(-z w - b).

    It is the scalar decay of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060) with A = -1, and a forget
    gate (Gers et al. 2000) per head. As that gate's bias by Tallec and Ollivier (2018), b begins
    with memories of every length: half-lives spread geometrically between 16 and 4,096 tokens,
    while w is zero. Far below, a head forgets nothing.

    Args:
        dim: channels of z.
        num_heads: heads H.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        places = (torch.arange(num_heads) + 0.5) / num_heads
        first, last = (math.log(math.log(2) / tokens) for tokens in HALF_LIVES)
        rates = torch.exp(first + (last - first) * places)  # of a token: -log a
        self.weight = nn.Parameter(torch.zeros(num_heads, dim))
        self.bias = nn.Parameter(rates.expm1().log())

    def forward(self, z: Tensor) -> Tensor:
        """z (B, L, D) to log a (B, L, H), in float32 or better, at most 0."""
        wide = accumulation_dtype(z)
        by_data = F.linear(z, self.weight.to(z.dtype)).to(wide)
        with without_autocast(z):
            return -F.softplus(by_data + self.bias.to(wide))


class LinearAttention(nn.Module):
    """norm_head(linear_attention(q, k, v)) * silu(gate), q and k from ``QueryKey``.

    There is no denominator; the norm over each head's output takes its place (our definition).

    Args:
        dim: channels of z.
        v_dim: channels of v over all heads.
        causal: tokens attend to the past only, chunk by chunk.
        config: the mixer's choices. Each of H heads has a state of (qk_dim / H) x (v_dim / H);
            with a decay, as in Mamba-2, heads of v share one of q and k: qk_dim x (v_dim / H).
            Lengths are divided out as in DeltaNet (Yang et al. 2024, arXiv 2406.06484).

    Raises:
        ValueError: the heads do not divide qk_dim or v_dim, or what looks back is not causal.
    """

    operation = "linear_attention"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it

    def __init__(self, dim: int, v_dim: int, causal: bool, config: ChelaConfig) -> None:
        super().__init__()
        if not causal:
            _refuse_looking_back(config)
        qk_dim, num_heads, forgets = config.qk_dim, config.num_heads, config.attention_decay
        self.qk_heads = num_heads if forgets == "none" else 1
        for name, size, heads in (("qk_dim", qk_dim, self.qk_heads), ("v_dim", v_dim, num_heads)):
            if size % heads:
                raise ValueError(
                    f"{name}={size} is not divisible by num_heads={num_heads}; "
                    f"set {name}={-(-size // num_heads) * num_heads}, or another num_heads"
                )
        self.num_heads, self.qk_dim, self.v_dim = num_heads, qk_dim, v_dim
        self.causal, self.config = causal, config
        self.decay = None if forgets == "none" else Decay(dim, num_heads)
        self.query_key = QueryKey(dim, qk_dim, config.feature_map)
        norm, head_dim = config.head_norm, v_dim // num_heads
        self.head_norm = None if norm == "none" else make_norm(norm, head_dim)

    def kernel_obstacle(self) -> str | None:
        """Why the kernels cannot serve these heads; None where they can."""
        heads = (self.qk_dim // self.qk_heads, self.v_dim // self.num_heads)
        return linear_attention.obstacle(*heads, forgets=self.decay is not None)

    def split_obstacle(self) -> None:
        """Its tokens can be those of several devices, which exchange states."""

    def least_exchange(self, shares: Shares) -> int:
        """Bytes that the devices of ``shares`` send at least, forward."""
        states = shares.states(self.qk_dim * self.v_dim // self.qk_heads, self.causal)
        return states + shares.halos(2, self.qk_dim) if self.config.key_shift else states

    def forward(
        self, z: Tensor, v: Tensor, gate: Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """Attend, and gate what comes out: together, one operation may do both in one pass.

        Args:
            z: (B, L, D), what queries and keys are made of.
            v: (B, L, v_dim).
            gate: (B, L, v_dim) before its SiLU, None for no gate.
            lengths: (B,) true lengths, None when nothing is padded.

        Returns:
            (B, L, v_dim).
        """
        return self._attended(z, v, gate, self._over(lengths))[0]

    def prefill(
        self, z: Tensor, v: Tensor, gate: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """``forward``, and the state behind each true length."""
        causal_only(self)
        o, products, k = self._attended(z, v, gate, self._over(lengths))
        latest = recent(k, lengths, 1) if self.config.key_shift else None
        return o, AttentionState(products, latest)

    def step(
        self, z: Tensor, v: Tensor, gate: Tensor | None, state: AttentionState
    ) -> tuple[Tensor, AttentionState]:
        """One more token of each sequence, (B, 1, ...) each, to (B, 1, v_dim)."""

        def attend(*qkv: Tensor, norm_weight: Tensor | None = None, **more: Any) -> Attended:
            more = {name: None if x is None else x[:, 0] for name, x in more.items()}
            q, k, v = (x[:, 0] for x in qkv)  # (B, H, d)
            step = linear_attention.recurrent_step
            o, products = step(q, k, v, state.products, norm_weight=norm_weight, **more)
            return o[:, None], products

        o, products, k = self._attended(z, v, gate, attend, state.key)
        return o, AttentionState(products, k if self.config.key_shift else None)

    def _over(self, lengths: Tensor | None) -> Callable[..., Attended]:
        """Attention to whole sequences."""
        how: dict[str, Any] = {"lengths": lengths, "implementation": self.implementation}
        if self.causal:
            return partial(causal_attention, chunk_size=self.config.chunk_size, **how)
        return lambda q, k, v, **more: (bidirectional_attention(q, k, v, **how, **more), None)

    def _attended(
        self,
        z: Tensor,
        v: Tensor,
        gate: Tensor | None,
        attend: Callable[..., Attended],
        key: Tensor | None = None,
    ) -> tuple[Tensor, Any, Tensor]:
        """The output (B, L, v_dim), the state behind it, and the keys of the tokens themselves.

        Args:
            z: see ``forward``, as v and gate.
            v: (B, L, v_dim).
            gate: (B, L, v_dim) or None.
            attend: of q, k and v per head, to the output and the state.
            key: of the token before the first, where keys are shifted; None at the beginning.
        """
        q, own = self.query_key(z)  # (B, L, qk_dim)
        k = own
        if self.config.key_shift:
            k = before(own) if key is None else key.to(own.dtype)
        heads = (self.qk_heads, self.qk_heads, self.num_heads)
        q, k, v = (x.unflatten(-1, (n, -1)) for x, n in zip((q, k, v), heads, strict=True))
        g = None if gate is None else gate.unflatten(-1, (self.num_heads, -1))  # (B, L, H, d)
        if self.config.qk_norm == "l2":
            q, k = _of_unit_length(q), _of_unit_length(k)
        more = {} if self.decay is None else {"log_decay": self.decay(z)}
        if self.head_norm is None or isinstance(self.head_norm, RMSNorm):
            weight = None if self.head_norm is None else self.head_norm.weight
            o, state = attend(q, k, v, norm_weight=weight, gate=g, **more)
        else:
            o, state = attend(q, k, v, **more)
            o = self.head_norm(o)
            o = o if g is None else o * F.silu(g)
        return o.flatten(2), state, own


def _of_unit_length(x: Tensor) -> Tensor:
    """x (..., d) over its length, zeros for zeros.

    A ReLU makes such. A gradient grows by 1e3 through them. Where lengths are cut off at 1e-12, as
    by ``F.normalize``, it grows by 1e12, and clipping leaves nothing else of a step.
    """
    wide = x.to(accumulation_dtype(x))
    return (wide * (wide.square().sum(-1, keepdim=True) + EPS).rsqrt()).to(x.dtype)


def _refuse_looking_back(config: ChelaConfig) -> None:
    for choice, off in (
        (config.key_shift, "key_shift=false"),
        (config.attention_decay != "none", "attention_decay=none"),
    ):
        if choice:
            raise ValueError(
                f"a bidirectional model takes {off} only, since the choice is about what came "
                f"before a token; set {off}, or causal=true where the task allows it"
            )
