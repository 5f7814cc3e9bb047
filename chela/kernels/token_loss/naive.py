"""The loss by its formula: all scores at once."""

from __future__ import annotations

import torch
from torch import Tensor


def token_loss(
    x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, nothing: int
) -> tuple[Tensor, Tensor]:
    """See ``chela.kernels.token_loss``; (N, V) scores in memory."""
    scores = x @ weight.T + bias  # (N, V)
    asked = targets != nothing
    rows = torch.arange(len(x), device=x.device)
    of_target = scores[rows, targets.clamp(min=0)]
    losses = torch.where(asked, scores.logsumexp(-1) - of_target, 0)
    return losses, ((scores.argmax(-1) == targets) & asked).to(losses.dtype)
