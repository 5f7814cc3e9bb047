"""The specification of the short convolution: one shifted copy of the input per tap."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    causal: bool,
    activation: str | None = None,
) -> Tensor:
    """y[t] = bias + sum_j weight[:, j] x[t - j + offset]; see the package for shapes."""
    length, width = x.shape[1], weight.shape[1]
    offset = 0 if causal else (width - 1) // 2
    y = torch.zeros_like(x)
    for j in range(width):
        for t in range(length):
            if 0 <= t - j + offset < length:
                y[:, t] = y[:, t] + weight[:, j] * x[:, t - j + offset]
    if bias is not None:
        y = y + bias
    return F.silu(y) if activation == "silu" else y
