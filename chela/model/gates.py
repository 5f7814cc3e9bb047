"""How the attention's output meets the convolutions' abstraction on its way out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels import token_mlp
from chela.kernels.tokens import Implementation, obstacle
from chela.model.layers import compute_dtype, linear


class SiluGate(nn.Module):
    """Wo (silu(z Wg) * o): the convolutions decide what of the attention passes."""

    operation = "token_mlp"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it

    def __init__(self, dim: int, v_dim: int, dropout: float) -> None:
        super().__init__()
        self.gate = linear(dim, v_dim)
        self.out = linear(v_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, z: Tensor, o: Tensor) -> Tensor:
        """The mixer's input h and z (B, L, D) and the attention's o (B, L, v_dim) to (B, L, D)."""
        if self.implementation == "triton":
            return self._fused(None, z, o, None, 0.0)
        return self.out(self.dropout(F.silu(self.gate(z)) * o))

    @property
    def fuses_residual(self) -> bool:
        """Whether ``add_to`` can be called: the kernel adds to the residual stream itself."""
        return self.implementation == "triton"

    def kernel_obstacle(self) -> str | None:
        """Why the kernels cannot serve this gate; None where they can."""
        return obstacle(self.out.out_features)

    def add_to(
        self, x: Tensor, z: Tensor, o: Tensor, lengths: Tensor | None, dropout: float
    ) -> Tensor:
        """x + dropout(self(h, z, o)) for the block's x (B, L, D), zero at padded positions."""
        return self._fused(x, z, o, lengths, dropout)

    def _fused(
        self, x: Tensor | None, z: Tensor, o: Tensor, lengths: Tensor | None, dropout: float
    ) -> Tensor:
        gate, out = self.gate, self.out
        return token_mlp.mlp(
            z,
            token_mlp.Weights(gate.weight, gate.bias, out.weight, out.bias),
            factor=o,
            residual=x,
            lengths=lengths,
            hidden_dropout=self.dropout.p if self.training else 0.0,
            dropout=dropout,
            dtype=compute_dtype(z),
            implementation=self.implementation,
        )


class MegaGate(nn.Module):
    """Mega's reset and update gates (Ma et al. 2023), with z for its EMA output.

    reset = silu(z Wr), update = sigmoid(z Wu), candidate = silu(z Wc + (reset * o) Wo). Returned is
    update * (candidate - h), so that the residual around the mixer makes the convex mix
    (1 - update) * h + update * candidate. That is exact with post-norm, where the residual is h;
    with pre-norm the residual is the unnormalised x (our definition: a mixer sees h only).
    There is no kernel for it: it runs in plain PyTorch everywhere.
    """

    fuses_residual = False

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
