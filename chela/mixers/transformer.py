"""The Transformer's mixer: softmax attention over the whole sequence (Vaswani et al. 2017).

    q, k, v = x Wq, x Wk, x Wv             per head, q and k turned by their positions
    o_t = sum_m softmax_m(q_t k_m / sqrt(d)) v_m
    y = o Wo

The product is PyTorch's ``scaled_dot_product_attention``: a flash kernel where there is one, no
L x L matrix in memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from chela.kernels import valid_mask, zero_padding
from chela.layers.basic import Rate, compute_dtype, linear
from chela.mixers.positions import Positions, check_heads, rotate
from chela.mixers.stepping import KeyValues, causal_only


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class TransformerConfig:
    """The choices inside the mixer; those of the block around it are the backbone's."""

    num_heads: PositiveInt = 4  # LRA's for text; it has 8 for ListOps, 1 for images
    attention_dim: PositiveInt | None = None  # of all heads together; null: dim, as everywhere
    # Relative, without parameters that depend on the length, and strong: a baseline at its best.
    # LRA's code adds sinusoidal or learned vectors to the embeddings instead.
    positions: Positions = "rotary"
    dropout: Rate = 0.0  # of attention weights; the block has its own


class TransformerMixer(nn.Module):
    """Softmax attention, without the norm before it and the residual around it.

    Args:
        dim: channels D.
        max_length: not needed, attention takes any length.
        causal: no position attends to a later one.
        config: the choices above.

    Raises:
        ValueError: the heads do not divide the channels; the message says what would.
    """

    Config = TransformerConfig
    operation = "softmax_attention"
    implementation = "torch"  # which picks one of its own kernels

    def __init__(
        self,
        dim: int,
        max_length: int,
        causal: bool = False,
        config: TransformerConfig = TransformerConfig(),
    ) -> None:
        super().__init__()
        inner_dim = dim if config.attention_dim is None else config.attention_dim
        check_heads(inner_dim, config.num_heads, config.positions)
        self.causal = causal
        self.config = config
        self.qkv = linear(dim, 3 * inner_dim)
        self.out = linear(inner_dim, dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix the tokens of each sequence, see ``ChelaMixer.forward``."""
        q, k, v = self._qkv(zero_padding(x, lengths))
        return self._attend(q, k, v, self._key_mask(lengths, x.shape[1]), self.causal)

    def split_obstacle(self) -> str:
        """Why its tokens cannot be those of several devices, and what to do."""
        return (
            "softmax attention looks at the keys and values of the whole sequence; take "
            "model=chela, linear_transformer, s4d or sgconv"
        )

    def prefill(
        self, x: Tensor, lengths: Tensor | None = None, room: int = 0
    ) -> tuple[Tensor, KeyValues]:
        """``forward``, and all keys and values, see ``chela.mixers.stepping``."""
        causal_only(self)
        q, k, v = self._qkv(zero_padding(x, lengths))
        return self._attend(q, k, v, None, causal=True), KeyValues.of(k, v, lengths, room)

    def step(self, x: Tensor, state: KeyValues) -> tuple[Tensor, KeyValues]:
        """One more token (B, 1, D) of each sequence; memory and time grow with the length."""
        place = state.tokens
        q, k, v = self._qkv(x, place)
        state = state.add(k, v)
        places = torch.arange(state.keys.shape[1], device=x.device)  # (C,)
        seen = (places <= place[:, None])[:, None, None]  # (B, 1, 1, C)
        return self._attend(q, state.keys, state.values, seen, causal=False), state

    def _qkv(self, x: Tensor, first: Tensor | int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, L, H, d) of x (B, L, D), ``first`` (B,) its position."""
        h = x.to(compute_dtype(x))
        q, k, v = self.qkv(h).unflatten(-1, (3, self.config.num_heads, -1)).unbind(2)
        if self.config.positions == "rotary":
            q, k = rotate(q, first), rotate(k, first)
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        o = F.scaled_dot_product_attention(  # wants and gives (B, H, L, d)
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask,
            dropout_p=self.config.dropout if self.training else 0.0,
            is_causal=causal,
        )
        return self.out(o.transpose(1, 2).flatten(2))  # (B, L, D)

    def _key_mask(self, lengths: Tensor | None, length: int) -> Tensor | None:
        """Which keys may be attended to, (B, 1, 1, L).

        Padding is at the end, so that a causal query sees none of it: without a mask all kernels
        can run. An empty sequence keeps one key, a zero: a softmax over nothing would be NaN.
        """
        if lengths is None or self.causal:
            return None
        return valid_mask(lengths.clamp(min=1), length)[:, None, None]
