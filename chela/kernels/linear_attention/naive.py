"""The specification of linear attention: the whole (L, L) matrix of weights, O(L^2)."""

from __future__ import annotations

import torch
from torch import Tensor

from chela.kernels.masking import valid_mask


def bidirectional(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
    """o_t = sum_m (q_t . k_m) v_m / length; see the package for shapes."""
    lengths, valid = _lengths_and_pairs(k, lengths)
    weights = torch.einsum("bthd,bmhd->bhtm", q, k) / lengths.clamp(min=1)[:, None, None, None]
    return torch.einsum("bhtm,bmhe->bthe", weights * valid, v)  # (B, L, H, dv)


def causal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
    log_decay: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """o_t = a_t q_t S_0 + sum_{m<=t} a_t / a_m (q_t . k_m) v_m, and the state at the end.

    a_t = exp(sum_{s<=t} log_decay_s), 1 without; no chunks here.
    """
    _, valid = _lengths_and_pairs(k, lengths)
    each = valid.diagonal(dim1=-2, dim2=-1)[:, 0, :, None]  # (B, L, 1)
    q, k = (x.expand(-1, -1, v.shape[2], -1) for x in (q, k))
    rates = each * (0 if log_decay is None else log_decay)  # (B, L, H) or (B, L, 1)
    c = rates.cumsum(1).mT  # (B, H, L)
    weights = torch.einsum("bthd,bmhd->bhtm", q, k) * valid
    weights = weights * (c[..., :, None] - c[..., None, :]).tril().exp()
    out = torch.einsum("bhtm,bmhe->bthe", weights.tril(), v)
    rest = (c[..., -1:] - c).exp().mT[..., None] * each[..., None]  # (B, L, H, 1)
    state = torch.einsum("bmhd,bmhe->bhde", k * rest, v)
    if initial_state is not None:
        first = torch.einsum("bthd,bhde->bthe", q, initial_state)
        out = out + first * each[..., None] * c.exp().mT[..., None]
        state = state + initial_state * rates.sum(1).exp()[..., None, None]
    return out, state


def finish(o: Tensor, norm_weight: Tensor | None, gate: Tensor | None) -> Tensor:
    """o / sqrt(mean(o^2) + 1e-6) * norm_weight * gate * sigmoid(gate), each factor if given."""
    if norm_weight is not None:
        o = o / (o.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm_weight
    return o if gate is None else o * gate * gate.sigmoid()


def _lengths_and_pairs(k: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """The true lengths (B,), and 1 where both t and m are real tokens, (B, 1, L, L)."""
    batch, length = k.shape[:2]
    if lengths is None:
        lengths = torch.full((batch,), length, device=k.device)
    valid = valid_mask(lengths, length)
    return lengths, (valid[:, None, :, None] & valid[:, None, None, :]).to(k.dtype)
