"""What the launches of the token-wise kernels share: limits, precision, weights' gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from chela.kernels import launching
from chela.kernels.launching import INTERPRETED, padded
from chela.kernels.precision import without_autocast
from chela.kernels.tokens.limits import DTYPES, obstacle

no_second_order = launching.no_second_order(
    "the fused token-wise kernels have no second derivative; "
    "use implementation='torch' where one is needed"
)


@dataclass(frozen=True)
class Tile:
    """How a kernel is cut and launched."""

    rows: int  # tokens per program
    hidden: int  # hidden channels at a time
    warps: int
    stages: int  # loads in flight


def check(x: Tensor, dtype: torch.dtype) -> None:
    """Hold x (B, L, D) against what the kernels serve.

    Raises:
        ValueError: a dtype, a D or a device they do not serve; the message says what does.
    """
    if dtype not in DTYPES or x.dtype not in DTYPES:
        raise ValueError(
            f"x is {x.dtype}, to be computed in {dtype}: the Triton kernels serve bfloat16, "
            "float16 and float32; use implementation='torch'"
        )
    why = obstacle(x.shape[-1])
    if why is not None:
        raise ValueError(f"{why}; use implementation='torch'")
    if not x.is_cuda and not INTERPRETED:
        raise ValueError(f"x is on {x.device}: Triton needs a GPU; use implementation='torch'")


def precision() -> dict[str, Any]:
    """Widening for the interpreter; and float32 products round to tf32 where PyTorch's own may."""
    exact = torch.get_float32_matmul_precision() == "highest"
    return {"WIDE": INTERPRETED, "PRECISION": "ieee" if exact else "tf32"}


def cut(x: Tensor, name: str, features: int, tile: Tile) -> tuple[int, dict[str, Any]]:
    """The number of programs over the tokens of x, and what a kernel is compiled for.

    Args:
        x: (tokens, D).
        name: what the kernel calls the features on the other side, ``N`` or ``H``; its tiles of
            them are called ``BN`` or ``BH``.
        features: how many there are.
        tile: how the kernel is cut.
    """
    dim = x.shape[-1]
    constants = {
        "D": dim,
        name: features,
        "BD": padded(dim),
        f"B{name}": min(tile.hidden, padded(features)),
        "ROWS": tile.rows,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
        **precision(),
    }
    return triton.cdiv(x.shape[0], tile.rows), constants


def given(x: Tensor | None, dtype: torch.dtype | None = None) -> Tensor | None:
    """``x`` in ``dtype`` (None for its own) as the kernels read it, without gaps."""
    return None if x is None else x.to(dtype or x.dtype).contiguous()


def tokens_of(x: Tensor) -> Tensor:
    """x (B, L, C) as (B * L, C), in memory token by token."""
    return x.reshape(-1, x.shape[-1]).contiguous()


def weight_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """dy^T x in float32 for dy (tokens, N) and x (tokens, K), summed in float32: (N, K)."""
    with without_autocast(x):
        if x.is_cuda and x.dtype != torch.float32:
            return torch.mm(dy.t(), x, out_dtype=torch.float32)
        return dy.t().float() @ x.float()
