"""The ways out of the mixer: the gate on the attention, and the convolutions' own path.

A gate is asked twice: first for ``preactivation``, so that the attention can apply its SiLU in the
pass that writes o; then with the gated o for the mixer's output. A gate on kernels of its own
takes o as it is, and does the rest, the block's residual included, in one pass: ``add_to``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels import token_mlp
from chela.layers.basic import Dropout, linear
from chela.layers.token_mlp import TokenMLP


class SiluGate(TokenMLP):
    """Wo (silu(z Wg) * o): the convolutions decide what of the attention passes."""

    def __init__(self, dim: int, v_dim: int, dropout: float) -> None:
        super().__init__()
        self.gate = linear(dim, v_dim)
        self.out = linear(v_dim, dim)
        self.dropout = Dropout(dropout)

    def preactivation(self, z: Tensor) -> Tensor:
        """z Wg: (B, L, D) to (B, L, v_dim)."""
        return self.gate(z)

    def forward(self, h: Tensor, z: Tensor, gated: Tensor) -> Tensor:
        """The mixer's input h and z (B, L, D) and silu(z Wg) * o (B, L, v_dim) to (B, L, D)."""
        return self.out(self.dropout(gated))

    def weights(self) -> token_mlp.Weights:
        """Both maps."""
        gate, out = self.gate, self.out
        return token_mlp.Weights(gate.weight, gate.bias, out.weight, out.bias)

    def add_to(
        self, x: Tensor | None, z: Tensor, o: Tensor, lengths: Tensor | None, dropout: float
    ) -> Tensor:
        """x + dropout(Wo (silu(z Wg) * o)) for the block's x, zero at padded positions.

        Args:
            x: (B, L, D), None to add to nothing.
            z: (B, L, D).
            o: (B, L, v_dim), not gated yet.
            lengths: (B,) true lengths, None when nothing is padded.
            dropout: on what is added to x.

        Returns:
            (B, L, D).
        """
        return self.fused(z, factor=o, residual=x, lengths=lengths, dropout=dropout)


class NoGate(nn.Module):
    """Wo o: everything of the attention passes. For ablations; there is no kernel for it."""

    fuses_residual = False

    def __init__(self, dim: int, v_dim: int, dropout: float) -> None:
        super().__init__()
        self.out = linear(v_dim, dim)
        self.dropout = Dropout(dropout)

    def preactivation(self, z: Tensor) -> None:
        """There is nothing to multiply with."""

    def forward(self, h: Tensor, z: Tensor, gated: Tensor) -> Tensor:
        """The mixer's input h and z (B, L, D) and o (B, L, v_dim) to (B, L, D)."""
        return self.out(self.dropout(gated))


class MegaGate(nn.Module):
    """Mega's reset and update gates (Ma et al. 2023), with z for its EMA output.

    reset = silu(z Wr), update = sigmoid(z Wu), candidate = silu(z Wc + (reset * o) Wo). Returned is
    update * (candidate - h), so that the residual around the mixer makes the convex mix
    (1 - update) * h + update * candidate. That is exact with post-norm, where the residual is h;
    with pre-norm the residual is the unnormalised x (our definition: a mixer sees h only).
    There is no kernel for it.
    """

    fuses_residual = False

    def __init__(self, dim: int, v_dim: int, dropout: float) -> None:
        super().__init__()
        self.reset = linear(dim, v_dim)
        self.update = linear(dim, dim)
        self.candidate = linear(dim, dim)
        self.out = linear(v_dim, dim)
        self.dropout = Dropout(dropout)

    def preactivation(self, z: Tensor) -> Tensor:
        """z Wr: (B, L, D) to (B, L, v_dim)."""
        return self.reset(z)

    def forward(self, h: Tensor, z: Tensor, gated: Tensor) -> Tensor:
        """The mixer's input h and z (B, L, D) and reset * o (B, L, v_dim) to (B, L, D)."""
        candidate = F.silu(self.candidate(z) + self.out(self.dropout(gated)))  # (B, L, D)
        return self.update(z).sigmoid() * (candidate - h)


class LinearPath(nn.Module):
    """Wd silu(z): the convolutions reach the residual stream whatever attention gives."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out = linear(dim, dim)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, L, D) to what is added to the gated attention, (B, L, D)."""
        return self.out(F.silu(z))


class GluPath(nn.Module):
    """a * sigmoid(b), [a, b] = Wd gelu(z): S4's way out of its convolution (Gu et al. 2022)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out = linear(dim, 2 * dim)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, L, D) to what is added to the gated attention, (B, L, D)."""
        return F.glu(self.out(F.gelu(z)), dim=-1)
