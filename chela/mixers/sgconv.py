"""SGConv's mixer: a structured global convolution, and nothing else across tokens (Li et al. 2023).

    y = conv(x) + skip * x                 a kernel as long as the sequence, in either direction
    out = glu(dropout(gelu(y)) W)          S4's block: channels mix after the convolution

The kernel has few parameters, fine near lag 0 and ever coarser and weaker with distance: see
``MultiscaleKernel``.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from chela.layers.basic import Rate
from chela.mixers.convolving import GatedConvolution
from chela.mixers.long_kernels import MultiscaleKernel


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class SGConvConfig:
    """The choices inside the mixer."""

    taps: PositiveInt = 32  # per scale and channel; SGConv's for the image tasks (1 or 2 for text)
    decay: Annotated[float, Gt(0), Le(1)] = 0.5  # weight from scale to scale: SGConv's on most
    dropout: Rate = 0.0  # before the output map; the block has its own


class SGConvMixer(GatedConvolution):
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
        directions = 1 if causal else 2
        kernel = MultiscaleKernel(dim, max_length, directions, config.taps, config.decay)
        super().__init__(kernel, dim, config.dropout)
        self.causal = causal
