"""Mega's mixer: a moving average in front of gated single-head attention (Ma et al. 2023).

    m = silu(ema(x) + omega * x)                         damped EMA, 16 per channel and direction
    z = silu(m Wz);  q, k = scale * z + shift            shared representation
    v = silu(x Wv)
    o = f(q k^T / tau + bias) v                          whole, or within chunks of the sequence
    c = silu(m Wc + (silu(m Wr) * o) Wo)                 candidate, with the reset gate
    y = u * c + (1 - u) * x,  u = sigmoid(m Wu)          update gate

f is a softmax with tau = sqrt(dim of z), or, value by value, Laplace's or the squared ReLU with
tau = the number of keys. omega and the SiLU around the EMA are in Mega's published code, not in its
equations; ``ema_silu=false`` leaves both out. Returned is y - x, since the block adds x.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from chela.kernels import valid_mask, zero_padding
from chela.kernels.precision import without_autocast
from chela.layers.basic import Dropout, Rate, compute_dtype, linear
from chela.mixers.convolving import LongConvMixer
from chela.mixers.long_kernels import EMAKernel
from chela.mixers.positions import turns
from chela.mixers.stepping import NO_END, FilterState, KeyValues, causal_only, token_counts

INIT_STD = 0.02  # of scales and biases, as in Mega's code: attention starts almost uniform
LAPLACE_MEAN, LAPLACE_STD = (
    math.sqrt(1 / 2),
    math.sqrt(1 / (4 * math.pi)),
)  # touches relu^2 there


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class MegaConfig:
    """The choices inside the mixer; sizes are Mega's for LRA."""

    ema_dim: PositiveInt = 16  # exponentials per channel and direction
    ema_silu: bool = True  # as the code that gave the published numbers
    qk_dim: PositiveInt = 64  # z
    v_dim: PositiveInt | None = None  # null: 2 * dim
    attention: Literal["softmax", "laplace", "relu2"] = "softmax"  # laplace on Mega's image tasks
    chunk_size: PositiveInt | None = None  # null: the whole sequence; Mega-chunk has 128
    position_bias: Literal["simple", "rotary"] = "simple"  # one number per distance: Mega's for LRA
    dropout: Rate = 0.0  # on m; the block drops the mixer's output

    def __post_init__(self) -> None:
        if self.position_bias == "rotary" and self.qk_dim % 2:
            raise ValueError(
                f"qk_dim={self.qk_dim}: a rotary bias turns pairs of channels; "
                f"set qk_dim={self.qk_dim + 1}, or position_bias=simple"
            )


class MegaState(NamedTuple):
    """Where the moving average and the attention are."""

    ema: FilterState
    cache: KeyValues  # of all tokens, or of those of the latest chunk


class MegaMixer(LongConvMixer):
    """EMA and gated attention, without the norm before it and the residual around it.

    The mix with x is exact with post-norm, where the residual is the mixer's input; with pre-norm
    the residual is the unnormalised stream, as ``chela.mixers.chela.gates.MegaGate`` explains.

    Args:
        dim: channels D.
        max_length: the longest batch it will see.
        causal: no position sees a later one; attention in chunks then ends at the chunk's start.
        config: the choices above.
    """

    Config = MegaConfig

    def __init__(
        self, dim: int, max_length: int, causal: bool = False, config: MegaConfig = MegaConfig()
    ) -> None:
        super().__init__(max_length)
        qk_dim, v_dim = config.qk_dim, 2 * dim if config.v_dim is None else config.v_dim
        self.causal = causal
        self.config = config
        self.ema = EMAKernel(dim, max_length, 1 if causal else 2, config.ema_dim)
        self.omega = nn.Parameter(torch.randn(dim)) if config.ema_silu else None
        self.dropout = Dropout(config.dropout)
        self.shared, self.value = linear(dim, qk_dim), linear(dim, v_dim)
        self.scale_q, self.scale_k = (
            nn.Parameter(INIT_STD * torch.randn(qk_dim)) for _ in range(2)
        )
        # Under a softmax shift_k adds the same to all scores of a query.
        self.idle = ("shift_k",) if config.attention == "softmax" else ()
        self.shift_q, self.shift_k = (nn.Parameter(torch.zeros(qk_dim)) for _ in range(2))
        window = min(max_length, config.chunk_size or max_length)
        self.bias: SimpleBias | RotaryBias = (
            SimpleBias(window) if config.position_bias == "simple" else RotaryBias(qk_dim)
        )
        self.reset, self.update = linear(dim, v_dim), linear(dim, dim)
        self.candidate, self.out = linear(dim, dim), linear(v_dim, dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix the tokens of each sequence, see ``ChelaMixer.forward``."""
        h = zero_padding(x.to(compute_dtype(x)), lengths)  # (B, L, D)
        m = self._average(self.convolve(h, self.ema, self.omega))  # (B, L, D)
        return self._leave(h, m, self._attend(*self._qkv(h, m), lengths))

    def split_obstacle(self) -> str:
        """Why its tokens cannot be those of several devices, and what to do."""
        return (
            "Mega's attention looks at the keys and values of the whole sequence, or of a chunk "
            "that does not end with a device's share; take model=chela, linear_transformer, s4d or "
            "sgconv"
        )

    def prefill(
        self, x: Tensor, lengths: Tensor | None = None, room: int = 0
    ) -> tuple[Tensor, MegaState]:
        """``forward``, and the state behind it, see ``chela.mixers.stepping``."""
        causal_only(self)
        h = zero_padding(x.to(compute_dtype(x)), lengths)  # (B, L, D)
        m = self._average(self.convolve(h, self.ema, self.omega))  # (B, L, D)
        q, k, v = self._qkv(h, m)
        if self.period is None:
            cache = KeyValues.of(k, v, lengths, int(min(room, self._limit() - x.shape[1])))
        else:
            cache = self._latest_chunk(k, v, lengths)
        ema = self.filter(self.ema, self.omega).begin(h, lengths)
        return self._leave(h, m, self._attend(q, k, v, lengths)), MegaState(ema, cache)

    def step(self, x: Tensor, state: MegaState) -> tuple[Tensor, MegaState]:
        """One more token (B, 1, D) of each sequence.

        Raises:
            ValueError: the bias has no number for this distance.
        """
        ema, cache = state
        h = x.to(compute_dtype(x))  # (B, 1, D)
        averaged, ema = ema.filter.step(h, ema)
        m = self._average(averaged)
        q, k, v = self._qkv(h, m)
        if self.period is None:
            place = cache.tokens
            cache = cache.add(k, v, self._limit())
        else:
            place = cache.tokens % self.period
            cache = cache.put(k, v, place)
        o = self._attend_to(cache.keys, cache.values, q, place)
        return self._leave(h, m, o), MegaState(ema, cache)

    @property
    def period(self) -> int | None:
        """Tokens of a chunk; None if the sequence is one."""
        size = self.config.chunk_size
        return None if size is None or size >= self.max_length else size

    def _limit(self) -> float:
        """How many tokens the attention can tell apart, without chunks."""
        return self.bias.window if isinstance(self.bias, SimpleBias) else math.inf

    def _latest_chunk(self, k: Tensor, v: Tensor, lengths: Tensor | None) -> KeyValues:
        """What the next token sees, from the front: nothing where it begins a chunk."""
        size = self.period or 1
        count = token_counts(k, lengths)
        places = torch.arange(size, device=k.device) + (count - count % size)[:, None]  # (B, C)
        rows = torch.arange(len(k), device=k.device)[:, None]
        places = places.clamp(max=k.shape[1] - 1)  # those are not looked at
        return KeyValues(k[rows, places], v[rows, places], count, NO_END)

    def _attend_to(self, keys: Tensor, values: Tensor, q: Tensor, place: Tensor) -> Tensor:
        """A query (B, 1, S) in a place (B,) among keys (B, C, S), to (B, 1, V)."""
        size = keys.shape[1]
        places = torch.arange(size, device=q.device)  # (C,)
        with without_autocast(q):
            bias = self.bias(size)[size - 1 + places - place[:, None]]  # (B, C)
            seen = (places <= place[:, None])[:, None]  # (B, 1, C)
            return self._weighed(q, keys, values, bias[:, None], seen)

    def _average(self, averaged: Tensor) -> Tensor:
        """m (B, L, D), of what the EMA gives."""
        return self.dropout(averaged if self.omega is None else F.silu(averaged))

    def _qkv(self, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys (B, L, S) and values (B, L, V)."""
        z = F.silu(self.shared(m))  # (B, L, S)
        q = z * self.scale_q.to(z.dtype) + self.shift_q.to(z.dtype)
        k = z * self.scale_k.to(z.dtype) + self.shift_k.to(z.dtype)
        return q, k, F.silu(self.value(h))

    def _leave(self, h: Tensor, m: Tensor, attended: Tensor) -> Tensor:
        o = F.silu(self.reset(m)) * attended  # (B, L, V)
        candidate = F.silu(self.candidate(m) + self.out(o))  # (B, L, D)
        return self.update(m).sigmoid() * (candidate - h)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, L, S), (B, L, S) and (B, L, V) to (B, L, V), each chunk by itself."""
        length = q.shape[1]
        size = min(length, self.config.chunk_size or length)
        missing = -length % size
        q, k, v = (F.pad(each, (0, 0, 0, missing)).unflatten(1, (-1, size)) for each in (q, k, v))
        with without_autocast(q):
            bias = toeplitz(self.bias(size))  # (C, C)
            allowed = self._allowed(length, size, lengths, q.device)
            o = self._weighed(q, k, v, bias, allowed)  # (B, N, C, V)
        return o.flatten(1, 2)[:, :length]

    def _allowed(
        self, length: int, size: int, lengths: Tensor | None, device: torch.device
    ) -> Tensor | None:
        """Which keys a query may see, broadcastable to (B, N, C, C); None for all.

        Padding is at the end: a causal query that is real sees none of it.
        """
        if self.causal:
            return torch.ones(size, size, dtype=torch.bool, device=device).tril()
        if lengths is None and length % size == 0:
            return None
        # torch.tensor would copy from the host, which a CUDA graph cannot record
        ends = torch.full((1,), length, device=device) if lengths is None else lengths
        real = valid_mask(ends, length + -length % size).unflatten(1, (-1, size))  # (B, N, C)
        real = real | ~real.any(-1, keepdim=True)  # a softmax over nothing would be NaN
        return real[:, :, None]  # (B, N, 1, C)

    def _weighed(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, allowed: Tensor | None
    ) -> Tensor:
        """The values, weighed by how f sees the scores."""
        if self.config.attention == "softmax":
            added = bias.to(q.dtype)
            if allowed is not None:
                added = added.masked_fill(~allowed, -math.inf)  # (C, C) or (B, N, C, C)
            # chunks in the place of heads
            return F.scaled_dot_product_attention(q, k, v, attn_mask=added)
        keys = k.shape[-2] if allowed is None else allowed.sum(-1, keepdim=True)
        scores = (q @ k.mT).to(bias.dtype) / keys + bias  # (B, N, C, C)
        if self.config.attention == "laplace":
            deviations = (scores - LAPLACE_MEAN) / (LAPLACE_STD * math.sqrt(2))
            weights = 0.5 * (1 + deviations.erf())
        else:
            weights = scores.relu().square()
        if allowed is not None:
            weights = weights.masked_fill(~allowed, 0)
        return weights.to(v.dtype) @ v


class SimpleBias(nn.Module):
    """One number per distance, up to a window."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.table = nn.Parameter(INIT_STD * torch.randn(2 * window - 1))

    def forward(self, size: int) -> Tensor:
        """The biases of key minus query from -(size - 1) to size - 1, (2 size - 1,)."""
        return self.table[self.window - size : self.window + size - 1]


class RotaryBias(nn.Module):
    """The product of two vectors, each turned by its position as in ``rotate``.

    It depends on the distance alone: with the vectors as complex numbers a and b per pair, it is
    sum Re(conj(a) b exp(i distance frequency)).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(INIT_STD * torch.randn(dim)) for _ in range(2))

    def forward(self, size: int) -> Tensor:
        """The biases of key minus query from -(size - 1) to size - 1, (2 size - 1,)."""
        offsets = torch.arange(1 - size, size, device=self.a.device)
        cos, sin = turns(offsets, len(self.a), self.a)  # (2 size - 1, d/2)
        (a1, a2), (b1, b2) = self.a.chunk(2), self.b.chunk(2)
        return cos @ (a1 * b1 + a2 * b2) - sin @ (a1 * b2 - a2 * b1)


def toeplitz(offsets: Tensor) -> Tensor:
    """The matrix (C, C) whose entry (i, j) is the offset of j - i; offsets are (2 C - 1,)."""
    return offsets.unfold(0, (len(offsets) + 1) // 2, 1).flip(0)
