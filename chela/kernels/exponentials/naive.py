"""The specification of sums of exponentials."""

from __future__ import annotations

import torch
from torch import Tensor


def exponential_sums(
    rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor, length: int
) -> Tensor:
    """Every exponential of every tap; see the package for shapes."""
    lags = torch.arange(length, device=rate.device, dtype=rate.dtype)
    size = (rate[..., None] * lags).exp()  # (D, N, L)
    turn = angle[..., None] * lags
    return (real[..., None] * size * turn.cos() - imag[..., None] * size * turn.sin()).sum(-2)
