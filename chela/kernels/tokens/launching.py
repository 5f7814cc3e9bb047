"""What the launches of the token-wise kernels share: limits, precision, weights' gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from chela.kernels import launching
from chela.kernels.launching import INTERPRETED, on, padded
from chela.kernels.precision import without_autocast
from chela.kernels.tokens import weight_kernels as kernels
from chela.kernels.tokens.limits import obstacle


@dataclass(frozen=True)
class Tile:
    """How a kernel is cut and launched."""

    rows: int  # tokens per program
    hidden: int  # hidden channels at a time
    warps: int
    stages: int  # loads in flight


@dataclass(frozen=True)
class WeightTile:
    """How the kernel of weights' gradients is cut and launched."""

    outputs: int  # of the linear map, per program
    inputs: int
    rows: int  # tokens at a time
    warps: int
    stages: int
    programs: int  # per multiprocessor


def check(x: Tensor, dtype: torch.dtype) -> None:
    """Hold x (B, L, D) against what the kernels serve.

    Raises:
        ValueError: a dtype, a D or a device they do not serve; the message says what does.
    """
    launching.check(x, dtype)
    why = obstacle(x.shape[-1])
    if why is not None:
        raise ValueError(f"{why}; use implementation='torch'")


def precision() -> dict[str, Any]:
    """Widening for the interpreter; and float32 products round to tf32 where PyTorch's own may."""
    exact = torch.get_float32_matmul_precision() == "highest"
    return {"WIDE": INTERPRETED, "PRECISION": "ieee" if exact else "tf32"}


def cut(x: Tensor, name: str, features: int, tile: Tile) -> tuple[int, dict[str, Any]]:
    """The number of tiles of the tokens of x, and what a kernel is compiled for.

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
        **launching.options(tile.warps, tile.stages),
        **precision(),
    }
    return triton.cdiv(x.shape[0], tile.rows), constants


def given(x: Tensor | None, dtype: torch.dtype | None = None) -> Tensor | None:
    """``x`` in ``dtype`` (None for its own) as the kernels read it, without gaps."""
    return None if x is None else x.to(dtype or x.dtype).contiguous()


def tokens_of(x: Tensor) -> Tensor:
    """x (B, L, C) as (B * L, C), in memory token by token."""
    return x.reshape(-1, x.shape[-1]).contiguous()


def flattened(x: Tensor | None) -> Tensor | None:
    """``tokens_of`` what may not be given."""
    return None if x is None else tokens_of(x)


def weight_tile(outputs: int, inputs: int) -> WeightTile:
    """The fastest of a sweep on an H100, within 5 %: 128 x 256, 64 x 128, 160 x 320, 64 x 160.

    With the bias it takes 45 us for 128 x 256 and 131,072 tokens, where cuBLAS takes 41 to 44
    without, and the bias, as a sum of its own, 89 to 119 more.
    """
    if outputs % 128 == 0 and inputs % 128 == 0:
        return WeightTile(64, 128, 64, 4, 3, 2)
    return WeightTile(64, 64, 64, 4, 4, 3)


def weight_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """Those of a linear map's weight and bias, summed in float32 and in a fixed order.

    Args:
        dy: (tokens, N) the gradient of its output.
        x: (tokens, K) its input, of the same dtype.

    Returns:
        (N K + N,) float32: dy^T x and the sum of dy, which ``weight_and_bias`` takes apart.
    """
    if x.dtype == torch.float32:
        with without_autocast(x):
            return torch.cat([(dy.t() @ x).flatten(), dy.sum(0)])
    tokens, outputs, inputs = x.shape[0], dy.shape[1], x.shape[1]
    tile = weight_tile(outputs, inputs)
    columns, rows = triton.cdiv(outputs, tile.outputs), triton.cdiv(inputs, tile.inputs)
    wanted = max(1, tile.programs * launching.processors(x) // (columns * rows))
    part = triton.cdiv(triton.cdiv(tokens, wanted), tile.rows) * tile.rows
    parts = triton.cdiv(tokens, part)
    shares = x.new_empty((parts, outputs * inputs + outputs), dtype=torch.float32)
    with on(x):
        kernels.token_weight_gradient[(columns, rows, parts)](
            dy, x, shares, tokens, part, N=outputs, K=inputs, BN=tile.outputs, BK=tile.inputs,
            ROWS=tile.rows, WIDE=INTERPRETED, **launching.options(tile.warps, tile.stages),
        )  # fmt: skip
    return shares.sum(0)


def weight_and_bias(gradient: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What ``weight_gradient`` returned for ``weight`` (N, K), as (N, K) and (N,)."""
    outputs, inputs = weight.shape
    return gradient[: outputs * inputs].view(outputs, inputs), gradient[outputs * inputs :]
