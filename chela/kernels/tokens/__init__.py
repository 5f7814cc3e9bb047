"""What the token-wise operations share: the norm they begin with, tiles of tokens, launching."""

from chela.kernels.tokens.limits import drawback, obstacle
from chela.kernels.tokens.norm import NO_NORM, NormKind, TokenNorm

__all__ = ["NO_NORM", "NormKind", "TokenNorm", "drawback", "obstacle"]
