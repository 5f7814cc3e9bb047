"""The specification of norm, linear map and SiLU."""

from __future__ import annotations

import torch
from torch import Tensor

from chela.kernels.tokens import NO_NORM, TokenNorm


def norm_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm: TokenNorm = NO_NORM,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h = n(x) and silu(W h + bias); see the package for shapes."""
    h = norm.naive(x)
    if lengths is not None:
        real = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        h = torch.where(real[..., None], h, torch.zeros_like(h))
    pre = torch.einsum("bld,nd->bln", h, weight) + bias
    return h, pre * torch.sigmoid(pre)
