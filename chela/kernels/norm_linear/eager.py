"""Norm, linear map and SiLU in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chela.kernels.masking import zero_padding
from chela.kernels.precision import without_autocast
from chela.kernels.tokens import TokenNorm


def norm_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm: TokenNorm,
    lengths: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Padding is silenced before the norm, whose gradient it would reach, and after its bias."""
    with without_autocast(x):
        h = zero_padding(norm.eager(zero_padding(x, lengths)).to(dtype), lengths)  # (B, L, D)
        return h, F.silu(F.linear(h, weight.to(dtype), bias.to(dtype)))
