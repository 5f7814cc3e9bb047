"""How the attention's output meets the convolutions' abstraction on its way out.

A gate is asked twice: first for ``preactivation``, so that the attention can apply its SiLU in the
pass that writes o; then with the gated o for the mixer's output.
"""

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

    def preactivation(self, z: Tensor) -> Tensor:
        """z Wg: (B, L, D) to (B, L, v_dim)."""
        return self.gate(z)

    def forward(self, h: Tensor, z: Tensor, gated: Tensor) -> Tensor:
        """The mixer's input h and z (B, L, D) and silu(z Wg) * o (B, L, v_dim) to (B, L, D)."""
        return self.out(self.dropout(gated))


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

    def preactivation(self, z: Tensor) -> Tensor:
        """z Wr: (B, L, D) to (B, L, v_dim)."""
        return self.reset(z)

    def forward(self, h: Tensor, z: Tensor, gated: Tensor) -> Tensor:
        """The mixer's input h and z (B, L, D) and reset * o (B, L, v_dim) to (B, L, D)."""
        candidate = F.silu(self.candidate(z) + self.out(self.dropout(gated)))  # (B, L, D)
        return self.update(z).sigmoid() * (candidate - h)
