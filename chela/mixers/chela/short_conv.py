"""The short convolution: what the neighbours say, and SiLU on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chela.kernels import short_conv
from chela.kernels.choice import Implementation


class ShortConv(nn.Module):
    """s = silu(shortconv(h)): depthwise, causal or centred."""

    operation = "short_conv"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it

    def __init__(self, dim: int, width: int, causal: bool) -> None:
        super().__init__()
        if not causal and width % 2 == 0:
            raise ValueError(
                f"short_conv_width={width}: a centred kernel needs an odd width, "
                f"e.g. {width + 1}, or set causal=true"
            )
        self.causal = causal
        bound = width**-0.5  # as PyTorch initialises a depthwise convolution
        self.weight = nn.Parameter(torch.empty(dim, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, D), zero at padded positions, to (B, L, D), which is not."""
        return short_conv.convolve(
            h,
            self.weight,
            self.bias,
            causal=self.causal,
            activation="silu",
            implementation=self.implementation,
        )
