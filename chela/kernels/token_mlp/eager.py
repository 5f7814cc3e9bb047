"""The token-wise MLP in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chela.kernels.dropout import dropout
from chela.kernels.masking import zero_padding
from chela.kernels.precision import without_autocast
from chela.kernels.token_mlp.arguments import Weights
from chela.kernels.tokens import TokenNorm


def mlp(
    x: Tensor,
    weights: Weights,
    norm: TokenNorm,
    factor: Tensor | None,
    residual: Tensor | None,
    add_x: bool,
    lengths: Tensor | None,
    p_hidden: float,
    p_out: float,
    tied: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Three matrix products at most, and what lies between them, one by one."""
    x = zero_padding(x, lengths)
    with without_autocast(x):
        n = norm.eager(x).to(dtype)
        a = F.silu(_linear(n, weights.w_hidden, weights.b_hidden))  # (B, L, H)
        if weights.w_up is not None and weights.b_up is not None:
            a = a * _linear(n, weights.w_up, weights.b_up)
        if factor is not None:
            a = a * zero_padding(factor, lengths).to(dtype)
        y = _linear(dropout(a, p_hidden, tied), weights.w_out, weights.b_out)  # (B, L, D)
        y = dropout(y, p_out, tied)
        if add_x:
            y = x + y
        if residual is not None:
            y = zero_padding(residual, lengths) + y
        return zero_padding(y, lengths)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))
