"""Linear attention in plain PyTorch: matrix products over chunks, states in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chela.kernels.masking import zero_padding
from chela.kernels.precision import accumulation_dtype, without_autocast

EPS = 1e-6  # of the norm per head: attention may hand it small numbers


def bidirectional(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
    """o = q (k^T v) / length: the (dk, dv) state first, so that nothing is L x L."""
    tokens = k.shape[1] if lengths is None else lengths.clamp(min=1)[:, None, None, None]
    return read(q, state(k, v, lengths) / tokens, lengths)


def causal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Per chunk c: O_c = Q_c S + ((Q_c K_c^T) * tril) V_c, then S += K_c^T V_c.

    The recurrence over S is a cumulative sum, so all chunks are computed side by side; padding is
    zero and adds nothing to S, so the last state is the one after the true length.
    """
    length = v.shape[1]
    chunk = max(1, min(chunk_size, length))
    q, k, v = (chunks(zero_padding(x, lengths), chunk) for x in (q, k, v))  # (B, H, N, C, d)
    with without_autocast(q):
        updates = (k.mT @ v).to(accumulation_dtype(v))  # (B, H, N, dk, dv)
        if initial_state is None:
            initial_state = updates.new_zeros(*updates.shape[:2], *updates.shape[3:])
        first = initial_state.to(updates.dtype)[:, :, None]
        states = torch.cat([first, updates], dim=2).cumsum(dim=2)  # (B, H, N + 1, dk, dv)
        before = states[:, :, :-1].to(v.dtype)  # what each chunk starts from
        out = q @ before + (q @ k.mT).tril() @ v  # (B, H, N, C, dv)
    out = out.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :length]  # (B, L, H, dv)
    return out, states[:, :, -1]


def state(k: Tensor, v: Tensor, lengths: Tensor | None) -> Tensor:
    """The sum of k^T v over all tokens (B, H, dk, dv), chunk by chunk, in float32 or better.

    In one product it would be rounded to the dtype of v, and beyond 65,504 be infinite in float16.
    """
    chunk = max(1, min(1024, v.shape[1]))
    k, v = (chunks(zero_padding(x, lengths), chunk) for x in (k, v))  # (B, H, N, C, d)
    with without_autocast(k):
        return (k.mT @ v).to(accumulation_dtype(v)).sum(2)


def read(q: Tensor, state: Tensor, lengths: Tensor | None) -> Tensor:
    """q S for the state (B, H, dk, dv) of each head, zero at padded positions."""
    with without_autocast(q):
        return torch.einsum("blhd,bhde->blhe", zero_padding(q, lengths), state.to(q.dtype))


def finish(
    o: Tensor, norm_weight: Tensor | None, gate: Tensor | None, lengths: Tensor | None
) -> Tensor:
    """o / rms(o) * norm_weight * silu(gate), each factor if given, in float32 or better."""
    wide = o.to(accumulation_dtype(o))
    if norm_weight is not None:
        wide = F.rms_norm(wide, o.shape[-1:], norm_weight.to(wide.dtype), EPS)
    if gate is not None:
        wide = wide * F.silu(zero_padding(gate, lengths).to(wide.dtype))
    return wide.to(o.dtype)


def recurrent_step(
    q_t: Tensor, k_t: Tensor, v_t: Tensor, state: Tensor, log_decay: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """S = exp(log_decay) S + k_t^T v_t, then o_t = q_t S."""
    with without_autocast(q_t):
        q_t, k_t, value = (x.to(state.dtype) for x in (q_t, k_t, v_t))
        if log_decay is not None:
            state = state * log_decay.to(state.dtype).exp()[..., None, None]
        state = state + k_t[..., :, None] * value[..., None, :]  # (B, H, dk, dv)
        return torch.einsum("bhd,bhde->bhe", q_t, state).to(v_t.dtype), state


def chunks(x: Tensor, chunk: int) -> Tensor:
    """(B, L, H, d) as (B, H, N, C, d), the last chunk filled up with zeros."""
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % chunk))
    return x.unflatten(1, (-1, chunk)).permute(0, 3, 1, 2, 4)
