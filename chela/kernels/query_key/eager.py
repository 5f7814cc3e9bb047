"""Queries and keys in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chela.kernels.precision import without_autocast
from chela.kernels.query_key.arguments import Affines


def query_key(
    z: Tensor, weight: Tensor, bias: Tensor, affines: Affines, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """One matrix product, SiLU, two affine maps."""
    with without_autocast(z):
        u = F.silu(F.linear(z.to(dtype), weight.to(dtype), bias.to(dtype)))  # (B, L, N)
        q = u * affines.scale_q.to(dtype) + affines.shift_q.to(dtype)
        return q, u * affines.scale_k.to(dtype) + affines.shift_k.to(dtype)
