"""SGConv's mixer: a structured global convolution, and nothing else across tokens (Li et al. 2023).

    y = conv(x) + skip * x                 a kernel as long as the sequence, in either direction
    out = glu(dropout(gelu(y)) W)          S4's block: channels mix after the convolution

The kernel has few parameters, fine near lag 0 and ever coarser and weaker with distance: see
``MultiscaleKernel``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from chela.baselines.convolving import Convolving
from chela.kernels import zero_padding
from chela.model.layers import compute_dtype, linear
from chela.model.long_kernels import MultiscaleKernel

PositiveInt = Annotated[int, Gt(0)]


@dataclass(frozen=True)
class SGConvConfig:
    """The choices inside the mixer."""

    taps: PositiveInt = 32  # per scale and channel; SGConv's for the image tasks (1 or 2 for text)
    decay: Annotated[float, Gt(0), Le(1)] = 0.5  # weight from scale to scale: SGConv's on most
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0  # before the output map; the block has its own


class SGConvMixer(Convolving):
    """A long convolution and a gated output map.

    Args:
        dim: channels D.
        max_length: the longest batch it will see; the kernel is built for it.
        causal: one direction instead of two.
        config: the choices above.
    """

    Config = SGConvConfig

    def __init__(
        self,
        dim: int,
        max_length: int,
        causal: bool = False,
        config: SGConvConfig = SGConvConfig(),
    ) -> None:
        super().__init__(max_length)
        directions = 1 if causal else 2
        self.kernel = MultiscaleKernel(dim, max_length, directions, config.taps, config.decay)
        self.skip = nn.Parameter(torch.randn(dim))  # as in S4
        self.dropout = nn.Dropout(config.dropout)
        self.out = linear(dim, 2 * dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix the tokens of each sequence.

        Args:
            x: (B, L, D); padded positions may hold anything.
            lengths: (B,) true lengths, None when nothing is padded.

        Returns:
            (B, L, D), in autocast's dtype where it is on; arbitrary at padded positions.

        Raises:
            ValueError: L exceeds max_length.
        """
        h = zero_padding(x.to(compute_dtype(x)), lengths)  # (B, L, D)
        y = self.convolve(h, self.kernel, self.skip)  # (B, L, D)
        return F.glu(self.out(self.dropout(F.gelu(y))), dim=-1)  # (B, L, D)
