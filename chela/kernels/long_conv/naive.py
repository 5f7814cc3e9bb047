"""The specification of the long convolution: the (L, L) Toeplitz matrix of each channel, O(L^2)."""

from __future__ import annotations

import torch
from torch import Tensor


def convolve(x: Tensor, kernel: Tensor, skip: Tensor | None = None) -> Tensor:
    """y_t = sum_m T[t, m] x_m with T[t, m] the tap of lag t - m; see the package for shapes."""
    length, taps = x.shape[1], kernel.shape[2]
    matrix = torch.zeros(x.shape[2], length, length, dtype=x.dtype, device=x.device)  # (D, L, L)
    for t in range(length):
        for m in range(length):
            lag = t - m
            if 0 <= lag < taps:
                matrix[:, t, m] = kernel[0, :, lag]
            elif kernel.shape[0] == 2 and 0 < -lag <= taps:
                matrix[:, t, m] = kernel[1, :, -lag - 1]
    y = torch.einsum("dtm,bmd->btd", matrix, x)
    return y if skip is None else y + skip * x
