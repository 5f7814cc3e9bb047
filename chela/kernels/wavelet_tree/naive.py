"""The specification of a tree of wavelets: scale by scale, for filters of any width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def wavelet_tree(filters: Tensor, weights: Tensor, length: int) -> Tensor:
    """See the package for shapes."""
    columns = filters.unbind(-1)  # (2, directions, D) each
    *scales, last = weights[..., None].unbind(2)
    low = torch.ones_like(last)  # (directions, D, 1)
    pieces = []
    for scale, weight in enumerate(scales):
        gaps = range(0, 2**scale * len(columns), 2**scale)  # before each tap's copy of low
        copies = [F.pad(low, gap) for gap in zip(gaps, reversed(gaps), strict=True)]
        both = torch.stack([h[..., None] * x for h, x in zip(columns, copies, strict=True)])
        low, high = both.sum(0)[..., :length]
        pieces.append(weight * high)
    pieces.append(last * low)
    return torch.stack([F.pad(x, (0, length - x.shape[-1])) for x in pieces]).sum(0)
