"""What the tests of the fused token-wise kernels share.

Without a GPU the kernels run in Triton's interpreter, so cases are small; with one the same cases
run compiled, and those marked ``gpu_only`` join them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from chela.kernels.tokens import TokenNorm
from tests.kernels.comparison import DEVICE, assert_same

TOLERANCES = {torch.bfloat16: 5e-3, torch.float16: 1e-3, torch.float32: 1e-5}
NORMS = ["none", "affine", "layer", "rms"]


def lengths_of(batch: int, length: int) -> Tensor:
    """The whole length, none of it, one token, and nearly all."""
    picked = [length, 0, 1, max(1, length - 3)]
    return torch.tensor([picked[i % 4] for i in range(batch)], device=DEVICE)


def padding(lengths: Tensor, length: int) -> Tensor:
    """(B, L), true where padded."""
    return torch.arange(length, device=DEVICE) >= lengths[:, None]


def norm_leaves(kind: str, dim: int) -> dict[str, Tensor]:
    """Weight and bias of a norm that is no identity; none for ``none``."""
    if kind == "none":
        return {}
    leaves = {"norm_weight": 1 + 0.3 * torch.randn(dim)}
    if kind != "rms":
        leaves["norm_bias"] = torch.randn(dim)
    return leaves


def norm_of(kind: str, leaves: dict[str, Tensor]) -> TokenNorm:
    weight, bias = leaves.get("norm_weight"), leaves.get("norm_bias")
    return TokenNorm(kind, weight, bias, 0.0 if kind == "affine" else 1e-5)


def prepared(leaves: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Everything rounded to ``dtype``; what is no activation is widened again, as parameters are.

    Rounding first keeps the rounding of parameters out of the comparison.
    """
    activations = ("x", "factor", "residual")
    return {
        name: (t.to(dtype) if name in activations else t.to(dtype).float())
        .to(DEVICE)
        .requires_grad_()
        for name, t in leaves.items()
    }


def check(
    fused: Callable[[dict[str, Tensor]], Sequence[Tensor]],
    specified: Callable[[dict[str, Tensor]], Sequence[Tensor]],
    leaves: dict[str, Tensor],
    tolerance: float,
) -> None:
    """Outputs and every gradient against float64; gradients have the dtypes of the leaves."""
    wide = {name: t.detach().double().requires_grad_() for name, t in leaves.items()}
    ours = fused(leaves)
    assert_same(
        ours, specified(wide), list(leaves.values()), list(wide.values()), tolerance, leaves
    )
