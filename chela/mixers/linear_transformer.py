"""The Linear Transformer's mixer: attention by a positive feature map (Katharopoulos et al. 2020).

    q, k, v = x Wq, x Wk, x Wv             per head; phi(u) = elu(u) + 1
    o_t = (sum_m phi(q_t) phi(k_m) v_m) / (sum_m phi(q_t) phi(k_m))
    y = o Wo

Both sums run over the whole sequence, or over m <= t when causal. The numerator is our linear
attention; the denominator is a product with the (running) sum of the keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from chela.kernels import linear_attention, zero_padding
from chela.kernels.choice import Implementation
from chela.kernels.precision import accumulation_dtype, without_autocast
from chela.layers.basic import compute_dtype, linear
from chela.layers.exchanges import sum_before, sum_of_all, true_counts
from chela.layers.sequence import part, parts
from chela.mixers.over_shares import Shares, bidirectional_attention, causal_attention
from chela.mixers.positions import Positions, check_heads, rotate
from chela.mixers.stepping import causal_only, token_counts

EPS = 1e-6  # keeps the denominator from 0 where all features of a query have underflowed


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class LinearTransformerConfig:
    """The choices inside the mixer; those of the block around it are the backbone's."""

    num_heads: PositiveInt = 4  # as the Transformer beside it
    attention_dim: PositiveInt | None = None  # of all heads together; null: dim
    # As the Transformer beside it. The numerator is rotated, the denominator is not: it would not
    # be a sum of positive numbers any more (Su et al. 2021, section 3.3).
    positions: Positions = "rotary"
    chunk_size: PositiveInt = 64  # causal attention's tile; speed only


class LinearTransformerState(NamedTuple):
    """What is known of all tokens so far."""

    products: Tensor  # (B, H, d, d), the sum of k^T v, turned by their positions
    sums: Tensor  # (B, H, d), of the keys, not turned
    position: Tensor  # (B,) of the next token


class LinearTransformerMixer(nn.Module):
    """Normalised linear attention, without the norm before it and the residual around it.

    Args:
        dim: channels D.
        max_length: not needed, attention takes any length.
        causal: no position attends to a later one.
        config: the choices above.

    Raises:
        ValueError: the heads do not divide the channels; the message says what would.
    """

    Config = LinearTransformerConfig
    operation = "linear_attention"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it

    def __init__(
        self,
        dim: int,
        max_length: int,
        causal: bool = False,
        config: LinearTransformerConfig = LinearTransformerConfig(),
    ) -> None:
        super().__init__()
        inner_dim = dim if config.attention_dim is None else config.attention_dim
        check_heads(inner_dim, config.num_heads, config.positions)
        self.causal = causal
        self.config = config
        self.head_dim = inner_dim // config.num_heads
        self.qkv = linear(dim, 3 * inner_dim)
        self.out = linear(inner_dim, dim)

    def kernel_obstacle(self) -> str | None:
        """Why the kernels cannot serve these heads; None where they can."""
        return linear_attention.obstacle(self.head_dim, self.head_dim)

    def split_obstacle(self) -> None:
        """Its tokens can be those of several devices, which exchange states."""

    def least_exchange(self, shares: Shares) -> int:
        """Bytes that the devices of ``shares`` send at least, forward."""
        heads, width = self.config.num_heads, self.head_dim
        return shares.states(heads * width * (width + 1), self.causal)  # and the sums of the keys

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix the tokens of each sequence, see ``ChelaMixer.forward``."""
        q, k, v = self._qkv(x, lengths)
        if self.causal:
            return self._causal(q, k, v, lengths)[0]
        denominator = self._denominator(q, k, lengths)  # (B, L, H, 1)
        how = self.implementation  # both are divided by the length
        o = bidirectional_attention(*self._turned(q, k), v, lengths, implementation=how)
        return self._leave(o / denominator, v)

    def prefill(
        self, x: Tensor, lengths: Tensor | None = None, room: int = 0
    ) -> tuple[Tensor, LinearTransformerState]:
        """``forward``, and the state behind it, see ``chela.mixers.stepping``."""
        causal_only(self)
        q, k, v = self._qkv(x, lengths)
        y, products = self._causal(q, k, v, lengths)
        sums = k.sum(1, dtype=accumulation_dtype(k))  # (B, H, d)
        return y, LinearTransformerState(products, sums, token_counts(x, lengths))

    def step(
        self, x: Tensor, state: LinearTransformerState
    ) -> tuple[Tensor, LinearTransformerState]:
        """One more token (B, 1, D) of each sequence."""
        q, k, v = self._qkv(x, None)  # (B, 1, H, d)
        with without_autocast(q):
            sums = state.sums + k[:, 0]  # (B, H, d)
            denominator = (q[:, 0] * sums).sum(-1, keepdim=True) + EPS  # (B, H, 1)
        q, k = self._turned(q, k, state.position)
        o, products = linear_attention.recurrent_step(q[:, 0], k[:, 0], v[:, 0], state.products)
        y = self._leave((o / denominator)[:, None], v)
        return y, LinearTransformerState(products, sums, state.position + 1)

    def _qkv(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Features of queries and keys, zero at padded positions, and values, (B, L, H, d)."""
        h = zero_padding(x.to(compute_dtype(x)), lengths)  # (B, L, D)
        q, k, v = self.qkv(h).unflatten(-1, (3, self.config.num_heads, -1)).unbind(2)
        return elu1(q), zero_padding(elu1(k), lengths), v

    def _turned(self, q: Tensor, k: Tensor, first: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        if self.config.positions != "rotary":
            return q, k
        first = first + part() * q.shape[1]  # those of the shares before this one
        return rotate(q, first), rotate(k, first)

    def _causal(
        self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The output (B, L, D), and the sum of k^T v behind it, (B, H, d, d)."""
        denominator = self._denominator(q, k, lengths)  # (B, L, H, 1)
        chunk_size, how = self.config.chunk_size, self.implementation
        o, products = causal_attention(
            *self._turned(q, k), v, lengths, chunk_size, implementation=how
        )
        return self._leave(o / denominator, v), products

    def _leave(self, o: Tensor, v: Tensor) -> Tensor:
        return self.out(o.flatten(2).to(v.dtype))  # (B, L, D)

    def _denominator(self, q: Tensor, k: Tensor, lengths: Tensor | None) -> Tensor:
        """The sum of weights, (B, L, H, 1), in float32 or better; k is zero at padded positions.

        If bidirectional it is divided by the length, as the numerator.
        """
        with without_autocast(q):
            wide = accumulation_dtype(q)
            if self.causal:
                sums = k.cumsum(1, dtype=wide)  # (B, L, H, d)
                if parts() > 1:
                    sums = sums + sum_before(k.sum(1, keepdim=True, dtype=wide))
            else:
                sums = sum_of_all(k.sum(1, keepdim=True, dtype=wide))  # (B, 1, H, d)
                sums = sums / true_counts(lengths, q.shape[1])
            return (q * sums).sum(-1, keepdim=True) + EPS


def elu1(x: Tensor) -> Tensor:
    """elu(x) + 1, positive: x + 1 above 0, else exp(x), without cancellation in bfloat16.

    In the dtype of x, though a GPU's autocast takes exp in float32.
    """
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp().to(x.dtype))
