"""What the parts of a block share that are an MLP of each token: how they reach the kernels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from chela.kernels import token_mlp
from chela.kernels.choice import Implementation
from chela.kernels.tokens import drawback, obstacle
from chela.layers.basic import Dropout, compute_dtype


class TokenMLP(nn.Module):
    """A part whose last map is ``out``, with ``dropout`` on what that reads."""

    operation = "token_mlp"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it

    dropout: Dropout
    out: nn.Linear

    @property
    def fuses_residual(self) -> bool:
        """Whether ``add_to`` is to be called: one kernel from one residual stream to the next."""
        return self.implementation == "triton"

    def kernel_obstacle(self) -> str | None:
        """Why the kernels cannot serve this part; None where they can."""
        return obstacle(self.out.out_features)

    def kernel_drawback(self) -> str | None:
        """Why torch.compile is to be preferred to them; None where they are faster."""
        return drawback(self.out.out_features, self.out.in_features)

    def weights(self) -> token_mlp.Weights:
        """The part's own, as the kernels take them."""
        raise NotImplementedError

    def fused(self, x: Tensor, **options: Any) -> Tensor:
        """``token_mlp.mlp`` of x (B, L, D) with this part's weights, dropout and precision."""
        return token_mlp.mlp(
            x,
            self.weights(),
            hidden_dropout=self.dropout.rate,
            tied_dropout=self.dropout.tied,
            dtype=compute_dtype(x),
            implementation=self.implementation,
            **options,
        )
