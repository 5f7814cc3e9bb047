"""The feed-forward part of a block: each token by itself.

With the Triton kernels one call does the whole part, a pre-norm block's norm and residual included.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from chela.kernels import token_mlp
from chela.kernels.tokens import TokenNorm
from chela.layers.basic import Dropout, linear
from chela.layers.token_mlp import TokenMLP


class FeedForward(TokenMLP):
    """What the two forms share."""

    def add_to(self, x: Tensor, norm: TokenNorm, lengths: Tensor | None, dropout: float) -> Tensor:
        """x + dropout(self(norm(x))) for x (B, L, D), zero at padded positions."""
        return self.fused(x, norm=norm, add_x=True, lengths=lengths, dropout=dropout)


class MLP(FeedForward):
    """fc - SiLU - fc."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.hidden = linear(dim, hidden_dim)
        self.out = linear(hidden_dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        if self.implementation == "triton":
            return self.fused(x)
        return self.out(self.dropout(F.silu(self.hidden(x))))

    def weights(self) -> token_mlp.Weights:
        """Two maps."""
        hidden, out = self.hidden, self.out
        return token_mlp.Weights(hidden.weight, hidden.bias, out.weight, out.bias)


class GLU(FeedForward):
    """silu(fc) * fc, then fc (SwiGLU, Shazeer 2020): half as many weights again as the MLP."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.gate = linear(dim, hidden_dim)
        self.hidden = linear(dim, hidden_dim)
        self.out = linear(hidden_dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        if self.implementation == "triton":
            return self.fused(x)
        return self.out(self.dropout(F.silu(self.gate(x)) * self.hidden(x)))

    def weights(self) -> token_mlp.Weights:
        """Three maps."""
        gate, up, out = self.gate, self.hidden, self.out
        return token_mlp.Weights(gate.weight, gate.bias, out.weight, out.bias, up.weight, up.bias)
