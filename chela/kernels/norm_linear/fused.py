"""Norm, linear map and SiLU as one Triton kernel per direction, behind a PyTorch operator.

A kernel of its own makes the gradients of weight and bias from what the backward kernel writes;
those of other vectors are summed per tile of tokens, then over tiles: in float32, in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chela.kernels.launching import no_second_order, on, padded
from chela.kernels.norm_linear import fused_kernels as kernels
from chela.kernels.tokens import TokenNorm, launching
from chela.kernels.tokens.launching import Tile, given, tokens_of, weight_and_bias


def norm_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm: TokenNorm,
    lengths: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """``norm_linear.norm_linear`` after its checks.

    Raises:
        ValueError: a dtype, D or device that the kernels do not serve.
    """
    launching.check(x, dtype)
    return _forward(x, norm.weight, norm.bias, weight, bias, lengths, norm.kind, norm.eps, dtype)


def _tile(dtype: torch.dtype, width: int, backward: bool) -> Tile:
    """The fastest of a sweep on an H100 at D 128 with N 256, and at 160 (a width of 256) with 320.

    Not swept: widths above 256.
    """
    if dtype == torch.float32:  # no tensor cores: small tiles keep the products in registers
        return Tile(16, 32, 4, 1) if width <= 128 else Tile(16, 16, 8, 1)
    if width <= 128:
        return Tile(64, 128, 4, 2) if backward else Tile(64, 64, 4, 1)
    return Tile(64, 64, 8, 2) if width <= 256 else Tile(32, 32, 8, 2)


@torch.library.custom_op("chela::norm_linear", mutates_args=())
def _forward(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    lengths: Tensor | None,
    norm: str,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    normal, y = _outputs(x, norm_weight, norm_bias, weight, dtype)
    if x.numel() == 0:
        return normal, y
    flat = tokens_of(x)
    tile = _tile(dtype, padded(flat.shape[1]), backward=False)
    tiles, constants = launching.cut(flat, "N", weight.shape[0], tile)
    with on(x):
        kernels.norm_linear_forward[(tiles,)](
            flat, given(norm_weight), given(norm_bias), given(weight, dtype), given(bias),
            given(lengths), normal, y, flat.shape[0], x.shape[1], eps, NORM=norm,
            RAGGED=lengths is not None, **constants,
        )  # fmt: skip
    return normal, y


@_forward.register_fake
def _outputs(
    x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """Memory for h and y."""
    shape = (*x.shape[:-1], weight.shape[0])
    return x.new_empty(x.shape, dtype=rest[-1]), x.new_empty(shape, dtype=rest[-1])


@torch.library.custom_op("chela::norm_linear_backward", mutates_args=())
def _backward(
    dnormal: Tensor,
    dy: Tensor,
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    lengths: Tensor | None,
    normal: Tensor,
    norm: str,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, of weight and bias together (``launching.weight_gradient``), and in one
    vector (2 D,) of the norm's weight and bias.
    """
    dx, of_map, of_norm = _gradients(dnormal, dy, x, norm_weight, norm_bias, weight)
    if x.numel() == 0:
        return dx, of_map.zero_(), of_norm.zero_()
    flat = tokens_of(x)
    tile = _tile(dtype, padded(flat.shape[1]), backward=True)
    tiles, constants = launching.cut(flat, "N", weight.shape[0], tile)
    dpre = flat.new_empty((flat.shape[0], weight.shape[0]), dtype=dtype)
    sums = None if norm == "none" else of_norm.new_empty((tiles, of_norm.shape[0]))
    with on(x):
        kernels.norm_linear_backward[(tiles,)](
            tokens_of(dnormal), tokens_of(dy), flat, given(norm_weight), given(norm_bias),
            given(weight, dtype), given(bias), given(lengths), dx, dpre, sums, flat.shape[0],
            x.shape[1], eps, NORM=norm, RAGGED=lengths is not None, **constants,
        )  # fmt: skip
    of_map = launching.weight_gradient(dpre, tokens_of(normal))
    return dx, of_map, of_norm if sums is None else sums.sum(0)


@_backward.register_fake
def _gradients(
    dnormal: Tensor,
    dy: Tensor,
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    weight: Tensor,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for what ``_backward`` returns; the parameters' gradients are in float32."""
    features, dim = weight.shape
    of_map = x.new_empty(features * dim + features, dtype=torch.float32)
    return x.new_empty(x.shape), of_map, of_map.new_empty(0 if norm_weight is None else 2 * dim)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, norm, eps, dtype = inputs
    ctx.options = (norm, eps, dtype)
    ctx.save_for_backward(*tensors, output[0])


def _autograd(ctx: Any, dnormal: Tensor, dy: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    _, norm_weight, norm_bias, weight, *_ = saved
    dx, of_map, of_norm = _backward(dnormal, dy, *saved, *ctx.options)
    dim = weight.shape[1]
    return (
        dx,
        None if norm_weight is None else of_norm[:dim],
        None if norm_bias is None else of_norm[dim:],
        *weight_and_bias(of_map, weight),
        None,
        *[None] * len(ctx.options),
    )


_forward.register_autograd(_autograd, setup_context=_save)
_backward.register_autograd(no_second_order)
