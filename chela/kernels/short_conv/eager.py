"""The short convolution in plain PyTorch: a grouped ``conv1d``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from chela.kernels.precision import without_autocast


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    causal: bool,
    activation: str | None = None,
) -> Tensor:
    """``conv1d`` correlates, so its taps run from the largest lag to the smallest: flipped."""
    width = weight.shape[1]
    offset = 0 if causal else (width - 1) // 2
    with without_autocast(x):
        taps = weight.flip(-1)[:, None].to(x.dtype)  # (D, 1, width)
        padded = F.pad(x.transpose(1, 2), (width - 1 - offset, offset))  # (B, D, L + width - 1)
        if x.shape[1] == 0:  # conv1d refuses what is shorter than its taps
            padded = F.pad(padded, (0, 1))
        y = F.conv1d(padded, taps, None if bias is None else bias.to(x.dtype), groups=x.shape[-1])
        y = y.transpose(1, 2)[:, : x.shape[1]]  # (B, L, D)
        return F.silu(y) if activation == "silu" else y
