"""The long convolution on tensor cores: a Fourier transform in two factors, never transposed.

With N = M C >= L, time t = c C + r and frequency j = f + M g, the transform of ``spectrum.py`` is

    X[f + M g] = sum_r W_f[g, r] sum_c F[f, c] x[c C + r],
    F[f, c] = exp(-2 pi i (f + 1/4) c / M),   W_f[g, r] = exp(-2 pi i ((f + 1/4) / N + g / C) r),

(a Monarch factorisation; Fu et al. 2023 use one for long convolutions), so that the convolution is
y = F^T W^T K W F x with real matrices, two rows or columns for each complex number. dx is the same
with conj(K), and dK = sum_b conj(W F x) W F dy: F x is kept for it, in place of x.

O(L sqrt(L)) operations; what counts at the lengths served is that they are dense. A result is as
exact as float16 products are, about 3e-4 of the norm before the last rounding, for bfloat16 and
float16 x of any magnitude. As in every Fourier transform a value is touched by all others of its
sequence at that relative size, later ones included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
import triton
from torch import Tensor

from chela.kernels.launching import on, options
from chela.kernels.long_conv import monarch_kernels as kernels
from chela.kernels.long_conv.factors import factors, few
from chela.kernels.long_conv.operator import convolve_by, front, register
from chela.kernels.long_conv.spectrum import spectrum, spectrum_gradient

T = TypeVar("T", int, torch.SymInt)


@dataclass(frozen=True)
class Launch:
    """How one kernel is cut and launched."""

    tile: int  # rows of F at once, or channels per program of W
    warps: int
    stages: int  # of the software pipeline
    registers: int | None = None  # per thread at most; fewer let more programs share a processor

    @property
    def options(self) -> dict[str, int]:
        """Triton's launch options."""
        return options(self.warps, self.stages, self.registers)


@dataclass(frozen=True)
class Plan:
    """How a length and a number of channels are cut; by measurement on an H200."""

    rows: int  # M
    columns: int  # C
    block: int  # channels per program of F, with a unit for each sequence
    mix: Launch
    unmix: Launch
    multiply: Launch
    backward: Launch


def factor_sizes(length: int) -> tuple[int, int]:
    """M and C with M C >= length, at most a quarter more.

    C as small as lets M stay within what F takes at full speed: W's share of the work grows with C,
    F's with M.
    """
    columns = 16 if length <= 1024 else 32 if length <= 4096 else 64
    return few(-(-length // columns)), columns


def channel_block(rows: int, dim: int) -> int:
    """Channels per program of F: as many as registers hold beside its M rows."""
    block = 128 if rows <= 128 else 64
    while block > 16 and block >= 2 * dim:
        block //= 2
    return block


PROGRAMS = 4 * 132  # of W: a multiple of an H200's multiprocessors, each takes several sequences


def plan(length: int, dim: int) -> Plan:
    """The cut for x of (B, length, dim)."""
    rows, columns = factor_sizes(length)
    block = channel_block(rows, dim)
    if rows <= 64:
        mix, unmix = Launch(64, 4, 2), Launch(64, 4, 2)
    elif rows <= 128:
        mix, unmix = Launch(128, 8, 1), Launch(64, 8, 3)
    else:
        mix, unmix = Launch(64, 8, 2), Launch(64, 8, 3)
    if columns < 64:
        multiply = Launch(min(128 if columns == 16 else 64, block), 4, 3)
        backward = Launch(min(64, block), 4, 3)
    else:
        multiply, backward = Launch(min(64, block), 8, 3), Launch(min(32, block), 8, 3, 128)
    return Plan(rows, columns, block, mix, unmix, multiply, backward)


class _Kernels:
    """The launches for one shape and device."""

    def __init__(self, x: Tensor, cut: Plan) -> None:
        self.cut = cut
        self.batch, self.length, self.dim = x.shape
        self.table, self.matrices, self.turns = factors(cut.rows, cut.columns, x.device)
        self.blocks = triton.cdiv(self.dim, cut.block)
        self.tiles = self.batch * cut.columns * self.blocks
        # What is kept lies in these shapes at the beginning of flat tensors.
        self.mixed = (self.batch, cut.rows, 2, cut.columns, self.dim)
        self.units = (self.batch, self.blocks)
        self.values = (2, cut.rows, cut.columns, self.dim)

    def mix(self, x: Tensor, mixed: Tensor, units: Tensor) -> None:
        """mixed = F x (B, M, 2, C, D), with its units (B, blocks)."""
        cut, launch = self.cut, self.cut.mix
        exponents = units.new_empty((*units.shape, cut.columns), dtype=torch.int32)
        kernels.mix_blocks[(self.tiles,)](
            x, self.table, mixed, exponents, self.length, self.dim, cut.rows, cut.columns,
            BQ=launch.tile, BK=self.table.shape[1], BN=cut.block,
            **launch.options,
        )  # fmt: skip
        kernels.align_units[(self.tiles,)](
            mixed, exponents, units, self.dim, cut.rows, C=cut.columns, BQ=32, BN=cut.block
        )

    def unmix(self, mixed: Tensor, units: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """F^T mixed as tokens (B, L, D)."""
        cut, launch = self.cut, self.cut.unmix
        y = torch.empty(self.batch, self.length, self.dim, dtype=dtype, device=mixed.device)
        kernels.unmix_blocks[(self.tiles,)](
            mixed, self.table, units, scales, y, self.length, self.dim, cut.rows, cut.columns,
            BQ=launch.tile, BK=self.table.shape[1], BN=cut.block,
            **launch.options,
        )  # fmt: skip
        return y

    def multiply(self, mixed: Tensor, out: Tensor, values: Tensor) -> None:
        """out = W^T K W mixed; ``out`` may be ``mixed``."""
        cut, launch = self.cut, self.cut.multiply
        kernels.multiply_frequencies[self._frequencies(launch)](
            mixed, out, self.matrices, values, self.batch, self.dim, cut.rows,
            C=cut.columns, BD=launch.tile, **launch.options,
        )  # fmt: skip

    def multiply_backward(
        self, mixed_x: Tensor, mixed_dy: Tensor, units_x: Tensor, units_dy: Tensor, values: Tensor
    ) -> Tensor:
        """mixed_dy = W^T conj(K) W mixed_dy; the spectrum's gradient as summands."""
        cut, launch = self.cut, self.cut.backward
        grid = self._frequencies(launch)
        partial = values.new_empty((grid[1], *values.shape))
        kernels.multiply_frequencies_backward[grid](
            mixed_x, mixed_dy, self.matrices, values, units_x, units_dy, partial,
            self.batch, self.dim, cut.rows, C=cut.columns, BN=cut.block, BD=launch.tile,
            **launch.options,
        )  # fmt: skip
        return partial

    def _frequencies(self, launch: Launch) -> tuple[int, int]:
        """A program per frequency and channels, and how many share the sequences of each."""
        parts = self.cut.rows * triton.cdiv(self.dim, launch.tile)
        return parts, max(1, min(self.batch, PROGRAMS // parts))


def room_for(length: int | torch.SymInt) -> int | torch.SymInt:
    """The positions to keep F x of ``length`` in: M C, or for a symbolic length its bound."""
    return math.prod(factor_sizes(length)) if isinstance(length, int) else room_bound(length)


def room_bound(length: T) -> T:
    """M C of ``length`` or more, for an int or a torch.SymInt.

    Without cases, so that a program compiled for a symbolic length serves every length: columns are
    at most 64, and M C is at most a quarter more than they need.
    """
    return (length + 63) // 4 * 5


def convolve(x: Tensor, kernel: Tensor, skip: Tensor | None) -> Tensor:
    """``long_conv.convolve`` after its checks, for what ``scheme`` calls monarch.

    Raises:
        ValueError: a device that Triton does not serve.
    """
    return convolve_by(_forward, room_for, x, kernel, skip)


@torch.library.custom_op("chela::long_conv", mutates_args=())
def _forward(
    x: Tensor, kernel: Tensor, skip: Tensor | None, room: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, and what the gradient needs, if it is to be kept: in ``room`` > 0 positions.

    That is F x, its units and the scaled spectrum, each at the beginning of a flat tensor whose
    size tells no compiler how the length is cut, and the scales (D,).
    """
    batch, length, dim = x.shape
    cut = plan(length, dim)
    places = max(room, cut.rows * cut.columns)
    mixed = x.new_empty(batch * places * 2 * dim, dtype=torch.float16)
    units = x.new_empty(_units_size(batch, dim), dtype=torch.float32)
    with on(x):
        run = _Kernels(x, cut)
        spread, scales = spectrum(kernel, skip, length, cut.rows, cut.columns, run.turns)
        if batch == 0:
            y = x.new_empty(x.shape)
        else:
            inside, own = front(mixed, *run.mixed), front(units, *run.units)
            run.mix(x.contiguous(), inside, own)
            product = torch.empty_like(inside) if room else inside
            run.multiply(inside, product, spread)
            y = run.unmix(product, own, scales, x.dtype)
        if not room:
            return y, mixed.new_empty(0), units, units.new_empty(0), scales
        values = spread.flatten()
        if places > cut.rows * cut.columns:
            values = values.new_empty(2 * places * dim)
            front(values, *run.values).copy_(spread)
    return y, mixed, units, values, scales


def _units_size(batch: int, dim: int) -> int:
    """Of the units, at most: a block has 16 channels or more."""
    return batch * ((dim + 15) // 16)


@_forward.register_fake
def _(x: Tensor, kernel: Tensor, skip: Tensor | None, room: int) -> tuple[Tensor, ...]:
    batch, _, dim = x.shape
    mixed = x.new_empty(batch * room * 2 * dim, dtype=torch.float16)
    units = x.new_empty(_units_size(batch, dim), dtype=torch.float32)
    return x.new_empty(x.shape), mixed, units, units.new_empty(2 * room * dim), units.new_empty(dim)


@torch.library.custom_op("chela::long_conv_backward", mutates_args=())
def _backward(
    dy: Tensor, kernel: Tensor, mixed: Tensor, units: Tensor, values: Tensor, scales: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, kernel and skip; the last one float32, also where there is no skip."""
    if dy.shape[0] == 0:
        return dy.new_empty(dy.shape), torch.zeros_like(kernel), torch.zeros_like(scales)
    length, dim = dy.shape[1:]
    with on(dy):
        run = _Kernels(dy, plan(length, dim))
        mixed, units = front(mixed, *run.mixed), front(units, *run.units)
        values = front(values, *run.values)
        mixed_dy, units_dy = torch.empty_like(mixed), torch.empty_like(units)
        run.mix(dy.contiguous(), mixed_dy, units_dy)
        partial = run.multiply_backward(mixed, mixed_dy, units, units_dy, values)
        dx = run.unmix(mixed_dy, units_dy, scales, dy.dtype)
        dkernel, dskip = spectrum_gradient(partial, kernel, length, run.turns)
    return dx, dkernel, dskip


@_backward.register_fake
def _(dy: Tensor, kernel: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dkernel = torch.empty_like(kernel, memory_format=torch.contiguous_format)
    return dy.new_empty(dy.shape), dkernel, torch.empty_like(rest[-1])


register(_forward, _backward)
