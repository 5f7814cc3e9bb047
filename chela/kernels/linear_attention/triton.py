"""Linear attention by the Triton kernels: the same two forms as ``eager``, with their limits."""

from __future__ import annotations

import torch
from torch import Tensor

from chela.kernels.launching import INTERPRETED
from chela.kernels.linear_attention.bidirectional_triton import bidirectional_attention
from chela.kernels.linear_attention.causal_triton import causal_attention
from chela.kernels.linear_attention.limits import MAX_HEAD_DIM

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


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
    save = _needs_gradient(q, k, v, norm_weight, gate)
    out, *_ = bidirectional_attention(q, k, v, lengths, norm_weight, gate, save)
    return out


def causal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    initial_state: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See the package.

    Raises:
        ValueError: a device, dtype or head dim that the kernels do not have.
    """
    _check(k, v)
    save = _needs_gradient(q, k, v, initial_state, norm_weight, gate)
    out, final, *_ = causal_attention(q, k, v, lengths, initial_state, norm_weight, gate, save)
    return out, final


def _check(k: Tensor, v: Tensor) -> None:
    if not (v.is_cuda or INTERPRETED):
        raise ValueError(
            f"the Triton kernels do not run on {v.device}; use implementation='torch', "
            "or for a test set TRITON_INTERPRET=1 before Python starts"
        )
    if v.dtype not in DTYPES:
        raise ValueError(
            f"the Triton kernels do not compute in {v.dtype}; "
            "give bfloat16, float16 or float32, or use implementation='torch'"
        )
    widest = max(k.shape[-1], v.shape[-1])
    if widest > MAX_HEAD_DIM:
        raise ValueError(
            f"a head of {widest} channels: the Triton kernels hold at most {MAX_HEAD_DIM}; "
            "use more heads, or implementation='torch'"
        )


def _needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether the forward pass must leave behind what the backward pass reads."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
