"""Sums of exponentials by Triton behind an operator: one kernel forward, two backward."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from chela.kernels.exponentials import fused_kernels as kernels
from chela.kernels.launching import check, on, register

MODES = 16  # at a time: the fewest that tl.dot multiplies over
TILE = 64  # taps forward
BACKWARD_TILE = 128
TILES = 16  # of one product backward, and of a program forward at least
MORE_TILES = (64, 32)  # of a program forward: they save exponentials where enough programs are left
STEPS = 16  # products of a program backward at most: what each program does once is little by then
PROGRAMS = 528  # that fill a GPU: four for each of a large one's 132 multiprocessors
REGISTERS = 168  # with which a multiprocessor has three programs backward, not two
SUM = {"ROWS": 16, "BM": 32}  # parts at a time, and modes, that a program adds up
FORM = {"BN": MODES, "num_warps": 4, "num_stages": 1}


def exponential_sums(
    rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor, length: int
) -> Tensor:
    """``exponentials.exponential_sums`` after its checks.

    Raises:
        ValueError: a dtype or device that the kernels do not serve.
    """
    check(rate, angle.dtype, real.dtype, imag.dtype, served=(torch.float32,))
    return _forward(rate, angle, real, imag, length)


def _tiles(rows: int, length: int) -> int:
    """How many tiles of taps a program has forward."""
    for tiles in MORE_TILES:
        taps = tiles * TILE
        if 2 * length > taps and rows * triton.cdiv(length, taps) >= PROGRAMS:
            return tiles
    return TILES


def _parts(rows: int, length: int) -> tuple[int, int]:
    """Into how many parts the taps are cut backward, and how many products each has.

    That is the same on every GPU, and so are the sums to the bit.
    """
    products = triton.cdiv(length, TILES * BACKWARD_TILE)
    steps = max(1, min(STEPS, rows * products // PROGRAMS))
    steps = triton.cdiv(products, triton.cdiv(products, steps))  # parts of one size
    return triton.cdiv(products, steps), steps


@torch.library.custom_op("chela::exponential_sums", mutates_args=())
def _forward(rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor, length: int) -> Tensor:
    given = [each.contiguous() for each in (rate, angle, real, imag)]
    directions, dim, n = real.shape
    out = real.new_empty(directions, dim, length)
    rows = directions * dim
    tiles = _tiles(rows, length)
    with on(rate):
        kernels.exponential_sums_forward[(rows, triton.cdiv(length, tiles * TILE))](
            *given, out, length, dim, n, BL=TILE, T=tiles, **FORM
        )
    return out


@_forward.register_fake
def _(rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor, length: int) -> Tensor:
    return real.new_empty(*real.shape[:2], length)


@torch.library.custom_op("chela::exponential_sums_backward", mutates_args=())
def _backward(
    dout: Tensor, rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor, length: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = [each.contiguous() for each in (rate, angle, real, imag, dout)]
    directions, dim, n = real.shape
    found = _empty_gradients(dout, *given[:4], length)
    rows, groups = directions * dim, triton.cdiv(n, MODES)
    count, steps = _parts(rows * groups, length)
    parts = real.new_empty(count, directions, 4, dim, n)
    with on(rate):
        kernels.exponential_sums_backward[(rows, count, groups)](
            *given[:2], given[4], parts, length, dim, n, steps, BL=BACKWARD_TILE, T=TILES,
            maxnreg=REGISTERS, **FORM,
        )  # fmt: skip
        kernels.exponential_sums_gradients[(triton.cdiv(dim * n, SUM["BM"]),)](
            parts, *given[2:4], *found, count, dim * n, K=directions, **SUM
        )
    return found


@_backward.register_fake
def _empty_gradients(
    dout: Tensor, rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor, length: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rates, amplitudes = rate.new_empty, real.new_empty
    return rates(rate.shape), rates(rate.shape), amplitudes(real.shape), amplitudes(real.shape)


register(_forward, _backward)
