"""The specification of the token-wise MLP, without dropout."""

from __future__ import annotations

import torch
from torch import Tensor

from chela.kernels.token_mlp.arguments import Weights
from chela.kernels.tokens import NO_NORM, TokenNorm


def mlp(
    x: Tensor,
    weights: Weights,
    norm: TokenNorm = NO_NORM,
    factor: Tensor | None = None,
    residual: Tensor | None = None,
    add_x: bool = False,
    lengths: Tensor | None = None,
) -> Tensor:
    """y = residual + W_out (silu(W_hidden n + b_hidden) * factor) + b_out; see the package."""
    n = norm.naive(x)
    pre = torch.einsum("bld,hd->blh", n, weights.w_hidden) + weights.b_hidden
    a = pre * torch.sigmoid(pre)
    if weights.w_up is not None and weights.b_up is not None:
        a = a * (torch.einsum("bld,hd->blh", n, weights.w_up) + weights.b_up)
    if factor is not None:
        a = a * factor
    y = torch.einsum("blh,dh->bld", a, weights.w_out) + weights.b_out
    if add_x:
        y = x + y
    if residual is not None:
        y = residual + y
    if lengths is not None:
        real = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        y = torch.where(real[..., None], y, torch.zeros_like(y))
    return y
