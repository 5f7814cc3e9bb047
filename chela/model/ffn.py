"""The feed-forward part of a block: each token by itself.

With the Triton kernels one call does the whole part, a pre-norm block's norm and residual included.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels import token_mlp
from chela.kernels.choice import Implementation
from chela.kernels.tokens import NO_NORM, TokenNorm, drawback, obstacle
from chela.layers.basic import Dropout, compute_dtype, linear


class FeedForward(nn.Module):
    """What the two forms share: how they reach the kernels."""

    operation = "token_mlp"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it

    dropout: Dropout  # on the hidden channels
    out: nn.Linear

    @property
    def fuses_residual(self) -> bool:
        """Whether ``add_to`` can be called: one kernel from residual stream to residual stream."""
        return self.implementation == "triton"

    def kernel_obstacle(self) -> str | None:
        """Why the kernels cannot serve this part; None where they can."""
        return obstacle(self.out.out_features)

    def kernel_drawback(self) -> str | None:
        """Why torch.compile is to be preferred to them; None where they are faster."""
        return drawback(self.out.out_features, self.out.in_features)

    def add_to(self, x: Tensor, norm: TokenNorm, lengths: Tensor | None, dropout: float) -> Tensor:
        """x + dropout(self(norm(x))) for x (B, L, D), zero at padded positions."""
        return self._fused(x, norm, lengths, dropout, add_x=True)

    def _fused(
        self,
        x: Tensor,
        norm: TokenNorm = NO_NORM,
        lengths: Tensor | None = None,
        dropout: float = 0.0,
        add_x: bool = False,
    ) -> Tensor:
        return token_mlp.mlp(
            x,
            self._weights(),
            norm=norm,
            add_x=add_x,
            lengths=lengths,
            hidden_dropout=self.dropout.rate,
            dropout=dropout,
            tied_dropout=self.dropout.tied,
            dtype=compute_dtype(x),
            implementation=self.implementation,
        )

    def _weights(self) -> token_mlp.Weights:
        raise NotImplementedError


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
            return self._fused(x)
        return self.out(self.dropout(F.silu(self.hidden(x))))

    def _weights(self) -> token_mlp.Weights:
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
            return self._fused(x)
        return self.out(self.dropout(F.silu(self.gate(x)) * self.hidden(x)))

    def _weights(self) -> token_mlp.Weights:
        gate, up, out = self.gate, self.hidden, self.out
        return token_mlp.Weights(gate.weight, gate.bias, out.weight, out.bias, up.weight, up.bias)
