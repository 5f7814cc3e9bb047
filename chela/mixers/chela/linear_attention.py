"""Linear attention as the model uses it: queries and keys, heads, norm per head, gate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels import linear_attention
from chela.kernels.choice import Implementation
from chela.layers.norms import RMSNorm, make_norm
from chela.mixers.chela.query_key import FeatureMap, QueryKey
from chela.mixers.over_shares import Shares, bidirectional_attention, causal_attention
from chela.mixers.stepping import causal_only

HeadNorm = Literal["rms", "layer", "none"]
QKV = tuple[Tensor, Tensor, Tensor]


class LinearAttention(nn.Module):
    """norm_head(linear_attention(q, k, v)) * silu(gate), q and k from ``QueryKey``.

    There is no denominator; the norm over each head's output takes its place (our definition).

    Args:
        dim: channels of z.
        qk_dim: channels of q and of k over all heads.
        v_dim: channels of v over all heads.
        num_heads: heads H, each with a state of (qk_dim / H) x (v_dim / H).
        feature_map: on the projection that q and k share.
        head_norm: over the channels of each head, with gains that all heads share.
        causal: tokens attend to the past only, chunk by chunk.
        chunk_size: tokens per chunk, for speed alone.

    Raises:
        ValueError: the heads do not divide qk_dim or v_dim.
    """

    operation = "linear_attention"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it

    def __init__(
        self,
        dim: int,
        qk_dim: int,
        v_dim: int,
        num_heads: int,
        feature_map: FeatureMap,
        head_norm: HeadNorm,
        causal: bool,
        chunk_size: int,
    ) -> None:
        super().__init__()
        for name, size in (("qk_dim", qk_dim), ("v_dim", v_dim)):
            if size % num_heads:
                raise ValueError(
                    f"{name}={size} is not divisible by num_heads={num_heads}; "
                    f"set {name}={-(-size // num_heads) * num_heads}, or another num_heads"
                )
        self.num_heads, self.qk_dim, self.v_dim = num_heads, qk_dim, v_dim
        self.causal = causal
        self.chunk_size = chunk_size
        self.query_key = QueryKey(dim, qk_dim, feature_map)
        head_dim = v_dim // num_heads
        self.head_norm = None if head_norm == "none" else make_norm(head_norm, head_dim)

    def kernel_obstacle(self) -> str | None:
        """Why the kernels cannot serve these heads; None where they can."""
        return linear_attention.obstacle(
            self.qk_dim // self.num_heads, self.v_dim // self.num_heads
        )

    def split_obstacle(self) -> None:
        """Its tokens can be those of several devices, which exchange states."""

    def least_exchange(self, shares: Shares) -> int:
        """Bytes that the devices of ``shares`` send at least, forward."""
        return shares.states(self.qk_dim * self.v_dim // self.num_heads, self.causal)

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
        if self.causal:
            return self._finished(z, v, gate, partial(self._causal, lengths))[0]
        return self._finished(z, v, gate, partial(self._bidirectional, lengths))[0]

    def prefill(
        self, z: Tensor, v: Tensor, gate: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``forward``, and the state (B, H, dk, dv) behind each true length."""
        causal_only(self)
        return self._finished(z, v, gate, partial(self._causal, lengths))

    def step(
        self, z: Tensor, v: Tensor, gate: Tensor | None, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One more token of each sequence, (B, 1, ...) each, to (B, 1, v_dim)."""
        return self._finished(z, v, gate, partial(self._step, state))

    def _finished(
        self,
        z: Tensor,
        v: Tensor,
        gate: Tensor | None,
        attend: Callable[[QKV, Tensor | None, Tensor | None], tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        q, k = self.query_key(z)  # (B, L, qk_dim)
        qkv = (self._heads(q), self._heads(k), self._heads(v))  # (B, L, H, d)
        g = None if gate is None else self._heads(gate)
        if self.head_norm is None or isinstance(self.head_norm, RMSNorm):
            weight = None if self.head_norm is None else self.head_norm.weight
            o, state = attend(qkv, weight, g)
        else:
            o, state = attend(qkv, None, None)
            o = self.head_norm(o)
            o = o if g is None else o * F.silu(g)
        return o.flatten(2), state  # (B, L, v_dim)

    def _bidirectional(
        self, lengths: Tensor | None, qkv: QKV, norm_weight: Tensor | None, gate: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        o = bidirectional_attention(
            *qkv,
            lengths,
            norm_weight=norm_weight,
            gate=gate,
            implementation=self.implementation,
        )
        return o, o  # there is no state

    def _causal(
        self, lengths: Tensor | None, qkv: QKV, norm_weight: Tensor | None, gate: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return causal_attention(
            *qkv,
            lengths,
            self.chunk_size,
            norm_weight=norm_weight,
            gate=gate,
            implementation=self.implementation,
        )

    def _step(
        self, state: Tensor, qkv: QKV, norm_weight: Tensor | None, gate: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        q, k, v = (each[:, 0] for each in qkv)  # (B, H, d)
        g = None if gate is None else gate[:, 0]
        o, state = linear_attention.recurrent_step(q, k, v, state, norm_weight=norm_weight, gate=g)
        return o[:, None], state

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))  # (B, L, H, d)
