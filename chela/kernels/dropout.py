"""Dropout in plain PyTorch, of each token by itself or of a sequence's whole channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, p: float, tied: bool) -> Tensor:
    """x / (1 - p) or 0, with probability p, as PyTorch's generator draws.

    Args:
        x: (B, L, C).
        p: the probability of 0, in [0, 1).
        tied: one draw for all tokens of a sequence's channel, as in the published code of S4 and S5
            and as Mega's feature dropout. Neighbouring tokens are so alike that a channel dropped
            at some of them is still known from the others.

    Returns:
        (B, L, C).
    """
    if not tied or p == 0:  # F.dropout hands x itself back for 0
        return F.dropout(x, p)
    return x * F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), p)
