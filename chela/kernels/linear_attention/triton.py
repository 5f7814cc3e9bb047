"""Linear attention by the Triton kernels: the same two forms as ``eager``, with their limits."""

from __future__ import annotations

import torch
from torch import Tensor

from chela.kernels import launching
from chela.kernels.linear_attention.bidirectional_triton import bidirectional_attention
from chela.kernels.linear_attention.causal_triton import causal_attention
from chela.kernels.linear_attention.decayed import running_decays
from chela.kernels.linear_attention.decayed_triton import chunk_of, decayed_attention
from chela.kernels.linear_attention.eager import finish
from chela.kernels.linear_attention.epilogue import MAX_WIDTH, attention_epilogue
from chela.kernels.linear_attention.limits import obstacle, value_parts
from chela.kernels.masking import zero_padding


def bidirectional(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
) -> Tensor:
    """See the package.

    Raises:
        ValueError: a device, dtype or head dim that the kernels do not have.
    """
    _check(k, v)
    parts = value_parts(k.shape[-1], v.shape[-1]) or 1
    if parts > 1:
        o = bidirectional(*_cut(q, k, v, parts), lengths, None, None)
        return finished(_joined(o, parts), norm_weight, gate, lengths)
    save = _needs_gradient(q, k, v, norm_weight, gate)
    out, *_ = bidirectional_attention(q, k, v, norm_weight, gate, lengths, save)
    return out


def causal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    lengths: Tensor | None,
    initial_state: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See the package.

    Raises:
        ValueError: a device, dtype or head dim that the kernels do not have, or a decay of heads
            that have a q and k each.
    """
    _check(k, v, log_decay is not None)
    if log_decay is not None and q.shape[2] > 1:
        raise ValueError(
            "the Triton kernels with a decay take one head of q and k for all of v; "
            "give (B, L, 1, dk), or use implementation='torch'"
        )
    parts = value_parts(k.shape[-1], v.shape[-1], log_decay is not None) or 1
    if parts > 1:
        if initial_state is not None:  # (B, H, dk, dv) as (B, H * parts, dk, dv / parts)
            initial_state = initial_state.unflatten(-1, (parts, -1)).movedim(3, 2).flatten(1, 2)
        if log_decay is None:
            q, k, v = _cut(q, k, v, parts)
        else:
            v = v.unflatten(-1, (parts, -1)).flatten(2, 3)
            log_decay = log_decay.repeat_interleave(parts, dim=2)
        o, final = causal(q, k, v, log_decay, lengths, initial_state, None, None)
        final = final.unflatten(1, (-1, parts)).movedim(2, 3).flatten(3)
        return finished(_joined(o, parts), norm_weight, gate, lengths), final
    save = _needs_gradient(q, k, v, log_decay, initial_state, norm_weight, gate)
    if log_decay is None:
        out, final, *_ = causal_attention(q, k, v, initial_state, norm_weight, gate, lengths, save)
    else:
        decays = running_decays(log_decay, lengths, chunk_of(k, v))
        out, final, *_ = decayed_attention(
            q, k, v, decays, initial_state, norm_weight, gate, lengths, save
        )
    return out, final


def finished(
    o: Tensor, norm_weight: Tensor | None, gate: Tensor | None, lengths: Tensor | None
) -> Tensor:
    """The epilogue as a pass of its own; without one, what is at padded positions stays there."""
    if norm_weight is None and gate is None:
        return o
    if o.shape[-1] <= MAX_WIDTH:
        return attention_epilogue(o, norm_weight, gate, lengths)
    return zero_padding(finish(o, norm_weight, gate, lengths), lengths)


def _check(k: Tensor, v: Tensor, forgets: bool = False) -> None:
    launching.check(v)
    reason = obstacle(k.shape[-1], v.shape[-1], forgets)
    if reason is not None:
        raise ValueError(f"{reason}, or use implementation='torch'")


def _cut(q: Tensor, k: Tensor, v: Tensor, parts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Heads H * parts with a part of the values each; the parts of one head share its q and k."""

    def shared(x: Tensor) -> Tensor:
        return x[:, :, :, None].expand(-1, -1, -1, parts, -1).flatten(2, 3)

    return shared(q), shared(k), v.unflatten(-1, (parts, -1)).flatten(2, 3)


def _joined(o: Tensor, parts: int) -> Tensor:
    """The outputs of ``_cut`` heads as (B, L, H, dv)."""
    return o.unflatten(2, (-1, parts)).flatten(3)


def _needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether the forward pass must leave behind what the backward pass reads."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
