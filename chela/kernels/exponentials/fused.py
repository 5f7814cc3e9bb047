"""Sums of exponentials as one Triton kernel per direction of autograd, behind an operator."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from chela.kernels.exponentials import fused_kernels as kernels
from chela.kernels.launching import INTERPRETED, no_second_order, on

TILE = 2048  # numbers exp(j s) that a program keeps in registers, twice
TILES = 16  # of taps that a program makes: few, so that a long kernel fills a GPU


def exponential_sums(
    rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor, length: int
) -> Tensor:
    """``exponentials.exponential_sums`` after its checks.

    Raises:
        ValueError: a dtype or device that the kernels do not serve.
    """
    if any(each.dtype != torch.float32 for each in (rate, angle, real, imag)):
        raise ValueError("the Triton form serves float32; use implementation='torch'")
    if not rate.is_cuda and not INTERPRETED:
        raise ValueError(
            f"rate is on {rate.device}: Triton needs a GPU; use implementation='torch'"
        )
    return _forward(rate, angle, real, imag, length)


def _tile(n: int) -> dict[str, int]:
    """BN and BL: all of a channel's exponentials, at a power of two of taps."""
    wide = max(2, triton.next_power_of_2(n))
    return {"BN": wide, "BL": max(16, TILE // wide)}


@torch.library.custom_op("chela::exponential_sums", mutates_args=())
def _forward(rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor, length: int) -> Tensor:
    given = [each.contiguous() for each in (rate, angle, real, imag)]
    directions, dim, n = real.shape
    out = real.new_empty(directions, dim, length)
    tile = _tile(n)
    with on(rate):
        kernels.exponential_sums_forward[(directions * dim, -(-length // (TILES * tile["BL"])))](
            *given, out, length, dim, n, **tile, TILES=TILES
        )
    return out


@_forward.register_fake
def _(rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor, length: int) -> Tensor:
    return real.new_empty(*real.shape[:2], length)


@torch.library.custom_op("chela::exponential_sums_backward", mutates_args=())
def _backward(
    dout: Tensor, rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = [each.contiguous() for each in (rate, angle, real, imag, dout)]
    directions, dim, n = real.shape
    found = [each.new_empty(each.shape) for each in given[:4]]
    with on(rate):
        kernels.exponential_sums_backward[(dim,)](
            *given, *found, dout.shape[-1], dim, n, K=directions, **_tile(n)
        )
    return found[0], found[1], found[2], found[3]


@_backward.register_fake
def _(
    dout: Tensor, rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = [each.new_empty(each.shape) for each in (rate, angle, real, imag)]
    return found[0], found[1], found[2], found[3]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])


def _gradients(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(dout, *ctx.saved_tensors), None)


_forward.register_autograd(_gradients, setup_context=_save)
_backward.register_autograd(
    no_second_order(
        "the Triton sums of exponentials have no second-order gradients; use implementation='torch'"
    )
)
