"""How the attention's output meets the convolutions' abstraction on its way out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from chela.model.layers import linear


class SiluGate(nn.Module):
    """Wo (silu(z Wg) * o): the convolutions decide what of the attention passes."""

    def __init__(self, dim: int, v_dim: int, dropout: float) -> None:
        super().__init__()
        self.gate = linear(dim, v_dim)
        self.out = linear(v_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, z: Tensor, o: Tensor) -> Tensor:
        """The mixer's input h and z (B, L, D) and the attention's o (B, L, v_dim) to (B, L, D)."""
        return self.out(self.dropout(F.silu(self.gate(z)) * o))


class MegaGate(nn.Module):
    """Mega's reset and update gates (Ma et al. 2023), with z for its EMA output.

    reset = silu(z Wr), update = sigmoid(z Wu), candidate = silu(z Wc + (reset * o) Wo). Returned is
    update * (candidate - h), so that the residual around the mixer makes the convex mix
    (1 - update) * h + update * candidate. That is exact with post-norm, where the residual is h;
    with pre-norm the residual is the unnormalised x (our definition: a mixer sees h only).
    """

    def __init__(self, dim: int, v_dim: int, dropout: float) -> None:
        super().__init__()
        self.reset = linear(dim, v_dim)
        self.update = linear(dim, dim)
        self.candidate = linear(dim, dim)
        self.out = linear(v_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, z: Tensor, o: Tensor) -> Tensor:
        """The mixer's input h and z (B, L, D) and the attention's o (B, L, v_dim) to (B, L, D)."""
        gated = self.dropout(F.silu(self.reset(z)) * o)  # (B, L, v_dim)
        candidate = F.silu(self.candidate(z) + self.out(gated))  # (B, L, D)
        return self.update(z).sigmoid() * (candidate - h)
