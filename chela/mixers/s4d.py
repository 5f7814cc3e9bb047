"""S4D's mixer: a diagonal state space as a long convolution (Gu et al. 2022).

    y = conv(x) + skip * x                 in either direction with its own C
    out = glu(dropout(gelu(y)) W)          S4's block: channels mix after the convolution

The kernel is that of ``chela.mixers.state_space``.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from chela.layers.basic import Rate
from chela.mixers.convolving import GatedConvolution
from chela.mixers.state_space import StateSpaceConfig, StateSpaceKernel


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class S4DConfig(StateSpaceConfig):
    """The choices inside the mixer."""

    dropout: Rate = 0.0  # before the output map; the block has its own


class S4DMixer(GatedConvolution):
    """A state space per channel and a gated output map.

    Args:
        dim: channels D.
        max_length: the longest batch it will see; the kernel is built for it.
        causal: one direction instead of two.
        config: the choices above.
    """

    Config = S4DConfig

    def __init__(
        self, dim: int, max_length: int, causal: bool = False, config: S4DConfig = S4DConfig()
    ) -> None:
        kernel = StateSpaceKernel(dim, max_length, 1 if causal else 2, config)
        super().__init__(kernel, dim, config.dropout)
        self.causal = causal
