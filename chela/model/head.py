"""From activations, pooled or each by itself, to class scores."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels import valid_mask, zero_padding
from chela.kernels.masking import last_token
from chela.kernels.precision import accumulation_dtype
from chela.layers.basic import linear
from chela.layers.exchanges import of_all
from chela.layers.processes import alone
from chela.layers.sequence import parts

Pooling = Literal["mean", "max", "last"]
HeadName = Literal["mlp", "linear"]


def pool(x: Tensor, lengths: Tensor | None, how: Pooling) -> Tensor:
    """One vector per sequence; the same in all processes that hold a sequence together.

    Args:
        x: (B, L, D); padded positions may hold anything.
        lengths: (B,) true lengths, None when nothing is padded.
        how: ``mean`` over the real tokens; the largest value of each channel (``max``), which
            gives a signal of few tokens its whole gradient; or the ``last`` real token.

    Returns:
        (B, D), in float32 or better; zeros for a sequence of length 0.
    """
    if parts() > 1:
        return _pool_shares(x, lengths, how)
    if how == "max" and lengths is not None:
        padded = ~valid_mask(lengths, x.shape[1])[..., None]  # (B, L, 1)
        largest = x.masked_fill(padded, float("-inf")).amax(1).to(accumulation_dtype(x))
        return largest.masked_fill(lengths[:, None] == 0, 0.0)
    x = zero_padding(x, lengths).to(accumulation_dtype(x))
    if how == "max":
        return x.amax(1)
    if how == "mean":
        total = x.sum(1)  # (B, D)
        return total / x.shape[1] if lengths is None else total / lengths.clamp(min=1)[:, None]
    return last_token(x, lengths)


def _pool_shares(x: Tensor, lengths: Tensor | None, how: Pooling) -> Tensor:
    """``pool`` of what each share comes to; ``lengths`` are those in this one."""
    if lengths is None:
        lengths = torch.full(x.shape[:1], x.shape[1], device=x.device)
    with alone():
        mine = pool(x, lengths, how)  # (B, D)
    counts = of_all(lengths)  # (P, B)
    shares = of_all(mine)  # (P, B, D)
    true = (counts > 0)[..., None]  # (P, B, 1)
    if how == "mean":
        weights = counts.to(shares.dtype) / counts.sum(0).clamp(min=1)  # (P, B)
        return (shares * weights[..., None]).sum(0)
    if how == "max":
        largest = shares.masked_fill(~true, float("-inf")).amax(0)
        return largest.masked_fill(~true.any(0), 0.0)
    last = (counts > 0).sum(0).clamp(min=1) - 1  # (B,) the share that holds the last token
    return shares[last, torch.arange(len(last), device=x.device)]


def make_head(name: HeadName, dim: int, hidden_dim: int, num_classes: int) -> nn.Module:
    """``mlp``: ``Head``; ``linear``: one linear map, as S4's models have it."""
    return linear(dim, num_classes) if name == "linear" else Head(dim, hidden_dim, num_classes)


class Head(nn.Module):
    """Linear - GELU - Linear on features, as the Long Range Arena's models have it."""

    def __init__(self, dim: int, hidden_dim: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = linear(dim, hidden_dim)
        self.out = linear(hidden_dim, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """(..., D) to logits (..., classes)."""
        return self.out(F.gelu(self.hidden(features)))


class Unread(NamedTuple):
    """Scores ``features @ weight.T + bias`` that nobody has computed: they may be too many."""

    features: Tensor  # (..., D)
    weight: Tensor  # (classes, D)
    bias: Tensor  # (classes,)


def unread(head: nn.Module, features: Tensor) -> Unread:
    """What ``head(features)`` would be, all but its last linear map.

    Args:
        head: of ``make_head``.
        features: (..., D).
    """
    if isinstance(head, Head):
        return Unread(F.gelu(head.hidden(features)), head.out.weight, head.out.bias)
    assert isinstance(head, nn.Linear)
    return Unread(features, head.weight, head.bias)
