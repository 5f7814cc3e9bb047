"""The feed-forward part of a block: each token by itself."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from chela.model.layers import linear


class MLP(nn.Module):
    """fc - SiLU - fc."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.hidden = linear(dim, hidden_dim)
        self.out = linear(hidden_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        return self.out(self.dropout(F.silu(self.hidden(x))))


class GLU(nn.Module):
    """silu(fc) * fc, then fc (SwiGLU, Shazeer 2020): half as many weights again as the MLP."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.gate = linear(dim, hidden_dim)
        self.hidden = linear(dim, hidden_dim)
        self.out = linear(hidden_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        return self.out(self.dropout(F.silu(self.gate(x)) * self.hidden(x)))
