"""The short convolution: what the neighbours say, and SiLU on it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels.choice import Implementation
from chela.mixers.over_shares import Shares, convolve_short, short_obstacle
from chela.mixers.stepping import Filter, FilterState, causal_only


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
        return convolve_short(
            h,
            self.weight,
            self.bias,
            causal=self.causal,
            activation="silu",
            implementation=self.implementation,
        )

    def split_obstacle(self) -> str | None:
        """Why its tokens cannot be those of several devices, and what to do; None: they can."""
        return short_obstacle(self.weight.shape[1], self.causal)

    def least_exchange(self, shares: Shares) -> int:
        """Bytes that the devices of ``shares`` send at least, forward."""
        dim, width = self.weight.shape
        return shares.halos(width, dim)

    def prefill(self, h: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, FilterState]:
        """``forward``, and the state behind each true length."""
        causal_only(self)
        # plain PyTorch rounds the taps, the kernels do not
        dtype = h.dtype if self.implementation == "torch" else self.weight.dtype
        taps = Filter(self.weight.to(dtype), self.bias.to(dtype))
        return self(h), taps.begin(h, lengths)

    def step(self, h: Tensor, state: FilterState) -> tuple[Tensor, FilterState]:
        """One more token (B, 1, D) of each sequence."""
        s, state = state.filter.step(h, state)
        return F.silu(s), state
