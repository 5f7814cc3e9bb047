"""Causal linear attention that forgets, in plain PyTorch: S_t = a_t S_{t-1} + k_t^T v_t.

With c the running sum of log a, token m counts exp(c_t - c_m) at t >= m. Only such differences are
ever raised to a power: they are at most 0, where exp(-c_m) alone overflows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chela.kernels.linear_attention import eager
from chela.kernels.linear_attention.eager import chunks
from chela.kernels.masking import zero_padding
from chela.kernels.precision import accumulation_dtype, without_autocast

AT_ONCE = 64  # states that one product runs through; more go in groups of so many


def causal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    lengths: Tensor | None = None,
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Per chunk: O = exp(c) (Q S) + (Q K^T * exp(c_i - c_j), i >= j) V, c running from its start.

    The heads of v that share a head of q and k lie side by side, G of them: what looks at no decay
    is one product for all. Shapes are (B, h, N, C, ...) for h heads of q and k, and N chunks.
    """
    length = v.shape[1]
    shared = q.shape[2]
    chunk = max(1, min(chunk_size, length))
    with without_autocast(q):
        c = _chunks_of(log_decay, lengths, chunk, shared).to(accumulation_dtype(v)).cumsum(3)
        v = _chunks_of(v, lengths, chunk, shared)  # (B, h, N, C, G, dv)
        q, k = (chunks(zero_padding(x, lengths), chunk) for x in (q, k))  # (B, h, N, C, dk)
        rest = (c[:, :, :, -1:] - c).exp()[..., None].to(v.dtype)  # (B, h, N, C, G, 1)
        updates = (k.mT @ (v * rest).flatten(-2)).unflatten(-1, v.shape[-2:])
        first = _first(updates, initial_state)
        states = running(  # (B, h, N + 1, dk, G, dv)
            torch.cat([first, updates.to(first.dtype)], dim=2),
            F.pad(c[:, :, :, -1], (0, 0, 1, 0)),
        )
        before = states[:, :, :-1].to(v.dtype).flatten(-2)  # what each chunk starts from
        out = (q @ before).unflatten(-1, v.shape[-2:]) * c.exp()[..., None].to(v.dtype)
        scores = (q @ k.mT)[:, :, :, None] * _weights(c).to(v.dtype)  # (B, h, N, G, C, C)
        out = out + (scores @ v.transpose(3, 4)).transpose(3, 4)  # (B, h, N, C, G, dv)
    out = out.permute(0, 2, 3, 1, 4, 5).flatten(3, 4).flatten(1, 2)  # (B, N * C, H, dv)
    return out[:, :length], states[:, :, -1].transpose(2, 3).flatten(1, 2)


def state(k: Tensor, v: Tensor, log_decay: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """The state (B, H, dk, dv) behind all tokens, and what is left there of one before, (B, H)."""
    with without_autocast(k):
        g = zero_padding(log_decay, lengths)
        after = g.flip(1).cumsum(1).flip(1)  # (B, L, H), each token's own included
        v = zero_padding(v, lengths) * (after - g).exp()[..., None].to(v.dtype)
        return eager.state(k.expand(-1, -1, v.shape[2], -1), v, lengths), g.sum(1).exp()


def running_decays(log_decay: Tensor, lengths: Tensor | None, chunk: int) -> Tensor:
    """The running sums of (B, L, H) within each chunk, (B, H, N, C) in a row in memory."""
    g = _chunks_of(log_decay, lengths, chunk, 1)[:, 0]  # (B, N, C, H)
    return g.permute(0, 3, 1, 2).contiguous().cumsum(-1)


def _chunks_of(x: Tensor, lengths: Tensor | None, chunk: int, shared: int) -> Tensor:
    """(B, L, H, ...) as (B, h, N, C, G, ...), the last chunk filled up with zeros."""
    x = zero_padding(x, lengths).unflatten(2, (shared, -1))
    x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, -x.shape[1] % chunk))
    return x.unflatten(1, (-1, chunk)).movedim(3, 1)


def _first(updates: Tensor, initial_state: Tensor | None) -> Tensor:
    """S_0 (B, H, dk, dv) as (B, h, 1, dk, G, dv), in float32 or better."""
    batch, shared, _, dk, group, dv = updates.shape
    wide = accumulation_dtype(updates)
    if initial_state is None:
        return updates.new_zeros(batch, shared, 1, dk, group, dv, dtype=wide)
    return initial_state.to(wide).unflatten(1, (shared, group)).transpose(2, 3)[:, :, None]


def running(x: Tensor, g: Tensor) -> Tensor:
    """y_n = exp(g_n) y_(n-1) + x_n of x (B, h, N, dk, G, dv) and g (B, h, N, G), from y = 0.

    A triangular product within each group of states, and then the same over the groups.
    """
    count = x.shape[2]
    size = min(count, AT_ONCE)
    missing = -count % size
    x = F.pad(x, (0, 0, 0, 0, 0, 0, 0, missing)).unflatten(2, (-1, size))
    c = F.pad(g, (0, 0, 0, missing)).unflatten(2, (-1, size)).cumsum(3)  # (B, h, M, R, G)
    y = torch.einsum("bhmgrs,bhmsdge->bhmrdge", _weights(c), x)
    if y.shape[2] > 1:
        ends = running(y[:, :, :-1, -1], c[:, :, :-1, -1])  # of each group but the last
        more = c[:, :, 1:].exp()[:, :, :, :, None, :, None] * ends[:, :, :, None]
        y = torch.cat([y[:, :, :1], y[:, :, 1:] + more], dim=2)
    return y.flatten(2, 3)[:, :, :count]


def _weights(c: Tensor) -> Tensor:
    """exp(c_i - c_j) where i >= j, else 0, of (B, h, N, C, G): (B, h, N, G, C, C)."""
    c = c.mT
    later = torch.ones(c.shape[-1], c.shape[-1], dtype=torch.bool, device=c.device).triu(1)
    return (c[..., :, None] - c[..., None, :]).masked_fill(later, -torch.inf).exp()
