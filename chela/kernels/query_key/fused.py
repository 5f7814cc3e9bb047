"""Queries and keys as one Triton kernel per direction, behind a PyTorch operator.

A kernel of its own makes the gradients of weight and bias from what the backward kernel writes;
those of other vectors are summed per tile of tokens, then over tiles: in float32, in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chela.kernels.launching import no_second_order, on, padded
from chela.kernels.query_key import fused_kernels as kernels
from chela.kernels.query_key.arguments import Affines
from chela.kernels.tokens import launching
from chela.kernels.tokens.launching import Tile, given, tokens_of, weight_and_bias


def query_key(
    z: Tensor, weight: Tensor, bias: Tensor, affines: Affines, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """``query_key.query_key`` after its checks.

    Raises:
        ValueError: a dtype, D or device that the kernels do not serve.
    """
    launching.check(z, dtype)
    a = affines
    return _forward(z, weight, bias, a.scale_q, a.shift_q, a.scale_k, a.shift_k, dtype)


def _tile(dtype: torch.dtype, width: int, backward: bool) -> Tile:
    """The fastest of a sweep on an H100 at N 64 with D 128, and with 160 (a width of 256).

    Not swept: widths above 256.
    """
    if dtype == torch.float32:  # no tensor cores: small tiles keep the products in registers
        return Tile(16, 32, 4, 1) if width <= 128 else Tile(16, 16, 8, 1)
    if width > 256:
        return Tile(32, 32, 8, 2)
    return Tile(128, 64, 8, 1) if backward and width > 128 else Tile(64, 64, 4, 1)


@torch.library.custom_op("chela::query_key", mutates_args=())
def _forward(
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale_q: Tensor,
    shift_q: Tensor,
    scale_k: Tensor,
    shift_k: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    q, k = _outputs(z, weight, dtype)
    if q.numel() == 0:
        return q, k
    flat = tokens_of(z)
    tile = _tile(dtype, padded(flat.shape[1]), backward=False)
    tiles, constants = launching.cut(flat, "N", weight.shape[0], tile)
    with on(z):
        kernels.query_key_forward[(tiles,)](
            flat, given(weight, dtype), given(bias), given(scale_q), given(shift_q),
            given(scale_k), given(shift_k), q, k, flat.shape[0], **constants,
        )  # fmt: skip
    return q, k


@_forward.register_fake
def _outputs(z: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Memory for q and k."""
    shape = (*z.shape[:-1], weight.shape[0])
    return z.new_empty(shape, dtype=rest[-1]), z.new_empty(shape, dtype=rest[-1])


@torch.library.custom_op("chela::query_key_backward", mutates_args=())
def _backward(
    dq: Tensor,
    dk: Tensor,
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale_q: Tensor,
    scale_k: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of z, of weight and bias together (``launching.weight_gradient``), and in one
    vector (4 N,) of scales and shifts.
    """
    dz, of_map, vectors = _gradients(dq, dk, z, weight)
    if z.numel() == 0:
        return dz, of_map.zero_(), vectors.zero_()
    flat = tokens_of(z)
    tile = _tile(dtype, padded(flat.shape[1]), backward=True)
    tiles, constants = launching.cut(flat, "N", weight.shape[0], tile)
    dpre = flat.new_empty((flat.shape[0], weight.shape[0]), dtype=dtype)
    sums = vectors.new_empty((tiles, vectors.shape[0]))
    with on(z):
        kernels.query_key_backward[(tiles,)](
            tokens_of(dq), tokens_of(dk), flat, given(weight, dtype), given(bias), given(scale_q),
            given(scale_k), dz, dpre, sums, flat.shape[0], **constants,
        )  # fmt: skip
    return dz, launching.weight_gradient(dpre, flat.to(dtype)), sums.sum(0)


@_backward.register_fake
def _gradients(
    dq: Tensor, dk: Tensor, z: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for what ``_backward`` returns; the parameters' gradients are in float32."""
    features, dim = weight.shape
    of_map = z.new_empty(features * dim + features, dtype=torch.float32)
    return z.new_empty(z.shape), of_map, of_map.new_empty(4 * features)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    z, weight, bias, scale_q, _, scale_k, _, ctx.dtype = inputs
    ctx.save_for_backward(z, weight, bias, scale_q, scale_k)


def _autograd(ctx: Any, dq: Tensor, dk: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    dz, of_map, vectors = _backward(dq, dk, *saved, ctx.dtype)
    return dz, *weight_and_bias(of_map, saved[1]), *vectors.chunk(4), None


_forward.register_autograd(_autograd, setup_context=_save)
_backward.register_autograd(no_second_order)
