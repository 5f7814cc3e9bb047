"""The short convolution as one Triton kernel per direction, behind a PyTorch operator.

Where plain PyTorch needs a transposed, padded copy, a grouped ``conv1d``, a transposition back and
SiLU, this reads x and writes y; backward it recomputes what precedes SiLU instead of storing it.
The taps are not rounded to the dtype of x, and all sums run in float32 and in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from chela.kernels.launching import check, on, register
from chela.kernels.short_conv import fused_kernels as kernels

MAX_WIDTH = 9  # the rows of a window lie in registers


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, causal: bool, activation: str | None
) -> Tensor:
    """``short_conv.convolve`` after its checks.

    Raises:
        ValueError: a width, dtype or device that the kernels do not serve.
    """
    width = weight.shape[1]
    if width > MAX_WIDTH:
        raise ValueError(
            f"a kernel of width {width}: the Triton form serves widths up to {MAX_WIDTH}; "
            "use implementation='torch'"
        )
    check(x)
    return _forward(x, weight, bias, causal, activation == "silu")


@dataclass(frozen=True)
class Tile:
    """How a kernel is cut."""

    channels: int  # BD
    streams: int  # S
    steps: int  # tokens of each stream, at least MAX_WIDTH - 1: the rows its window begins with


WARPS = 4
UNROLL = 4  # rows in flight: enough to hide memory's latency, few enough for the registers
REGISTERS = 128  # per thread, so that four programs share a multiprocessor; wide windows need more
PROGRAMS = 4 * 132  # at once: four on each of an H200's multiprocessors
STEPS = (8, 16, 32, 48, 64, 96, 128)  # to choose from: each is a program to compile
LONGEST_FORWARD = 32  # by measurement; only backward recomputes the rows that a stream begins with


def _tile(x: Tensor, backward: bool) -> Tile:
    """The steps that take least time if all programs at once take as long as one."""
    batch, length, dim = x.shape
    # The widest channel block that leaves at most a seventh of its lanes idle.
    channels = next((c for c in (128, 64, 32) if -dim % c * 7 <= dim), 16)
    streams = 32 * WARPS * 4 // channels  # four elements per thread, so that many warps fit

    def time(steps: int) -> int:
        parts = triton.cdiv(length, streams * steps) * triton.cdiv(dim, channels)
        return triton.cdiv(batch * parts, PROGRAMS) * (steps + MAX_WIDTH - 1)

    fitting = STEPS if backward else (each for each in STEPS if each <= LONGEST_FORWARD)
    return Tile(channels, streams, min(fitting, key=time))


def _launch(x: Tensor, width: int, causal: bool, tile: Tile) -> tuple[tuple[int], dict[str, int]]:
    """The grid, and the arguments that both kernels share."""
    batch, length, dim = x.shape
    parts = batch * triton.cdiv(length, tile.streams * tile.steps)
    arguments = {
        "L": length,
        "D": dim,
        "STEPS": tile.steps,
        "WIDTH": width,
        "OFFSET": 0 if causal else (width - 1) // 2,
        "S": tile.streams,
        "BD": tile.channels,
        "UNROLL": UNROLL,
        "num_warps": WARPS,
    }
    return (parts * triton.cdiv(dim, tile.channels),), arguments


@torch.library.custom_op("chela::short_conv", mutates_args=())
def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, causal: bool, silu: bool) -> Tensor:
    x, weight = x.contiguous(), weight.contiguous()
    y = torch.empty_like(x)
    if x.numel() == 0:
        return y
    width = weight.shape[1]
    grid, arguments = _launch(x, width, causal, _tile(x, backward=False))
    given = weight if bias is None else bias.contiguous()  # a pointer that is not read
    with on(x):
        kernels.short_conv_forward[grid](
            x, weight, given, y, BIAS=bias is not None, SILU=silu, **arguments
        )
    return y


@_forward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, causal: bool, silu: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("chela::short_conv_backward", mutates_args=())
def _backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, causal: bool, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias; the last one also where there is no bias."""
    dy, x, weight = dy.contiguous(), x.contiguous(), weight.contiguous()
    dim, width = weight.shape
    dx, dweight = torch.empty_like(x), torch.empty_like(weight)
    dbias = (weight if bias is None else bias).new_empty(dim)
    if x.numel() == 0:
        return dx, dweight.zero_(), dbias.zero_()
    tile = _tile(x, backward=True)
    grid, arguments = _launch(x, width, causal, tile)
    parts = grid[0] // triton.cdiv(dim, tile.channels)
    partial = torch.empty(parts, width + 1, dim, dtype=torch.float32, device=x.device)
    given = weight if bias is None else bias.contiguous()  # a pointer that is not read
    with on(x):
        kernels.short_conv_backward[grid](
            x, weight, given, dy, dx, partial, BIAS=bias is not None, SILU=silu,
            maxnreg=REGISTERS if width <= 5 else None, **arguments,
        )  # fmt: skip
        kernels.sum_parts[(triton.cdiv(dim, 32), width + 1)](
            partial, dweight, dbias, parts, dim, WIDTH=width, ROWS=128, BD=32
        )
    return dx, dweight, dbias


@_backward.register_fake
def _(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, causal: bool, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    dweight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return dx, dweight, (weight if bias is None else bias).new_empty(weight.shape[0])


register(_forward, _backward)
