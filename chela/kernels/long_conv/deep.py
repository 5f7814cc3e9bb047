"""The longest convolutions on tensor cores: a Fourier transform in three factors.

With N = P Q >= L and Q = M C, time t = p Q + c C + r and frequency j = f + P (g + M h), the
transform of ``spectrum.py`` is

    X[f + P (g + M h)] = sum_r W[h, r] T[f, g, r] sum_c V_f[g, c] sum_p F[f, p] x[t],
    F[f, p] = exp(-2 pi i (f + 1/4) p / P),      V_f[g, c] = exp(-2 pi i ((f + 1/4) / P + g) c / M),
    W[h, r] = exp(-2 pi i h r / C),              T[f, g, r] = exp(-2 pi i (f + P g + 1/4) r / N)

(``monarch.py`` has two factors, whose inner matrices take the turns T in; of three those would be
too many), and its adjoint leads back. The taps take the same way as one complex sequence more,
past_n + i future_{N-n}, and so does their gradient: beyond 16,384 tokens the float32 FFT of a
spectrum would take longer than the convolution of a sequence. A result is as exact as float16
products are, about 1e-3 of the norm before the last rounding.

In U = the bytes of one sequence x, forward moves 18 U a sequence and 12 U for its kernel, backward
20 and 14 (spectra in float32 from cuFFT would be about 90 for the kernel alone).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import triton
from torch import Tensor

from chela.kernels.launching import on, padded
from chela.kernels.long_conv import deep_kernels as kernels
from chela.kernels.long_conv import deep_tap_kernels as tap_kernels
from chela.kernels.long_conv.factors import factors, few, fourier_matrix
from chela.kernels.long_conv.operator import convolve_by, front, register

T = TypeVar("T", int, torch.SymInt)

CHANNELS = 64  # per program at most: lines of 128 bytes, and exponents of their own
ROWS = 128  # of a matrix per program at most
PROGRAMS = 8 * 132  # where a program takes several tiles: a multiple of an H200's multiprocessors
TAP_CHANNELS, TIMES = 16, 8  # of the taps per program: sectors of 32 bytes on both sides
MOST_COLUMNS = 64  # C


def factor_sizes(length: int) -> tuple[int, int, int]:
    """P, M and C with P M C >= length, at most a quarter more."""
    if length <= 1 << 16:
        middle, inner = 32, 32
    elif length <= 1 << 17:
        middle, inner = 64, 32
    else:
        middle, inner = (64 if length <= 1 << 19 else 128), 64
    return few(triton.cdiv(length, middle * inner)), middle, inner


@dataclass(frozen=True)
class _Buffer:
    """Sequences between two factors, and their exponents (sequences, channel blocks, rows)."""

    values: Tensor
    exponents: Tensor


class _Kernels:
    """The launches for one length and width."""

    def __init__(self, length: int, dim: int, device: torch.device) -> None:
        self.length, self.dim, self.device = length, dim, device
        self.outer, self.middle, self.inner = factor_sizes(length)
        self.columns = self.middle * self.inner  # Q
        self.size = self.outer * self.columns  # N
        self.table, self.matrices, _ = factors(self.outer, self.middle, device)
        self.matrix = fourier_matrix(self.inner, device)
        self.channels = min(CHANNELS, padded(dim))
        self.blocks = triton.cdiv(dim, self.channels)

    def buffer(self, sequences: int, rows: int, values: Tensor | None = None) -> _Buffer:
        """For ``sequences``, with an exponent per row; in ``values`` if they are given."""
        shape = (sequences, self.blocks, rows)
        if values is None:
            values = torch.empty(
                sequences, 2 * self.size, self.dim, dtype=torch.float16, device=self.device
            )
        return _Buffer(values, torch.empty(shape, dtype=torch.int32, device=self.device))

    def mix_outer(self, x: Tensor, target: _Buffer) -> None:
        """F x (B, L, D) into the first sequences."""
        width = self.table.shape[1]
        high = min(ROWS, 2 * width)
        chunks = triton.cdiv(2 * self.outer, high)
        kernels.mix_outer[self._columns(chunks, len(x))](
            x, self.table, target.values, target.exponents, self.length, self.dim, self.outer,
            self.columns, BQ=high, BK=width, BN=self.channels, CHUNKS=chunks,
            num_warps=4 if width <= 64 else 8,
        )  # fmt: skip

    def unmix_outer(self, source: _Buffer, y: Tensor) -> None:
        """The adjoint, times sqrt(N): a spectrum is that times a unitary transform."""
        width = self.table.shape[1]
        low = min(width, ROWS)
        chunks = triton.cdiv(self.outer, low)
        kernels.unmix_outer[self._columns(chunks, len(y))](
            source.values, self.table, source.exponents, y, math.sqrt(self.size), self.length,
            self.dim, self.outer, self.columns, BP=low, BK=width, BN=self.channels, CHUNKS=chunks,
            num_warps=4 if width <= 64 else 8,
        )  # fmt: skip

    def mix_taps(self, kernel: Tensor, skip: Tensor | None, target: _Buffer) -> None:
        """F of the taps into the last sequence."""
        width = self.table.shape[1]
        high = min(ROWS, 2 * width)
        chunks = triton.cdiv(2 * self.outer, high)
        directions, _, taps = kernel.shape
        tap_kernels.mix_taps[(self.blocks * chunks, self.columns // TIMES)](
            kernel, kernel if skip is None else skip, self.table, target.values[-1],
            target.exponents[-1], self.length, taps, self.dim, self.outer, self.columns,
            DIRECTIONS=directions, SKIP=skip is not None, BQ=high, BK=width, BN=self.channels,
            BD=TAP_CHANNELS, BS=TIMES, CHUNKS=chunks, num_warps=8, num_stages=1,
        )  # fmt: skip

    def unmix_taps(self, source: _Buffer, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of kernel and skip (D,) from the last sequence."""
        width = self.table.shape[1]
        low = min(width, ROWS // 2)
        chunks = triton.cdiv(self.outer, low)
        directions, _, taps = kernel.shape
        make = torch.zeros if taps > self.size else torch.empty
        dkernel = make(kernel.shape, dtype=kernel.dtype, device=self.device)
        dskip = torch.empty(self.dim, dtype=torch.float32, device=self.device)
        parts = triton.cdiv(self.dim, TAP_CHANNELS) * chunks
        starts = min(self.columns // TIMES, triton.cdiv(PROGRAMS, parts))
        tap_kernels.unmix_taps[(parts, starts)](
            source.values[-1], self.table, source.exponents[-1], dkernel, dskip,
            math.sqrt(self.size), self.length, taps, self.dim, self.outer, self.columns,
            DIRECTIONS=directions, BP=low, BK=width, BN=self.channels, BD=TAP_CHANNELS, BS=TIMES,
            CHUNKS=chunks, num_warps=8, num_stages=1,
        )  # fmt: skip
        return dkernel, dskip

    def multiply(self, mixed: _Buffer, target: _Buffer, batch: int) -> None:
        """W^T K W of the first sequences, K of the last one."""
        kernels.multiply_spectra[(self.outer * self.middle * self.blocks,)](
            mixed.values, target.values, self.matrix, mixed.exponents, target.exponents,
            batch, self.dim, self.outer * self.middle, C=self.inner, BN=self.channels,
            num_warps=self._warps(self.inner),
        )  # fmt: skip

    def multiply_backward(
        self, mixed: _Buffer, mixed_dy: _Buffer, exponents: Tensor, batch: int
    ) -> None:
        """W^T conj(K) W of the first sequences and the gradient of the last one, in place."""
        kernels.multiply_spectra_backward[(self.outer * self.middle * self.blocks,)](
            mixed.values, mixed_dy.values, self.matrix, mixed.exponents, mixed_dy.exponents,
            exponents, batch, self.dim, self.outer * self.middle, C=self.inner,
            BN=self.channels, num_warps=self._warps(self.inner), maxnreg=128,
        )  # fmt: skip

    def middle_factor(self, kernel: Any, source: _Buffer, target: _Buffer, sequences: int) -> None:
        """The middle factor of the first ``sequences`` and the turns behind it, or the adjoint."""
        rows = min(ROWS, 2 * self.middle)
        parts = self.blocks * (2 * self.middle // rows)
        starts = min(sequences * self.inner, triton.cdiv(PROGRAMS, parts * self.outer))
        kernel[(starts * parts, self.outer)](
            source.values, self.matrices, target.values, source.exponents, target.exponents,
            (1 << 62) // self.size, sequences, self.dim, self.outer, self.inner,
            M=self.middle, BR=rows, BN=self.channels, num_warps=self._warps(self.middle),
        )  # fmt: skip

    def _columns(self, chunks: int, sequences: int) -> tuple[int, int, int]:
        parts = self.blocks * chunks
        return parts, min(self.columns, triton.cdiv(PROGRAMS, parts * sequences)), sequences

    @staticmethod
    def _warps(size: int) -> int:
        return 4 if size <= 32 else 8


def room_for(length: int | torch.SymInt) -> int | torch.SymInt:
    """The positions to keep a transform of ``length`` in: N, or for a symbolic length its bound."""
    return math.prod(factor_sizes(length)) if isinstance(length, int) else room_bound(length)


def room_bound(length: T) -> T:
    """N of ``length`` > 16,384 or more, without cases: M C is at most a sixteenth of a length."""
    return (length + 2) // 3 * 4


def convolve(x: Tensor, kernel: Tensor, skip: Tensor | None) -> Tensor:
    """``long_conv.convolve`` after its checks, for what ``scheme`` calls deep monarch.

    Raises:
        ValueError: a device that Triton does not serve.
    """
    return convolve_by(_forward, room_for, x, kernel, skip)


@torch.library.custom_op("chela::longest_conv", mutates_args=())
def _forward(
    x: Tensor, kernel: Tensor, skip: Tensor | None, room: int
) -> tuple[Tensor, Tensor, Tensor]:
    """y, and what the gradient needs, if it is to be kept: in ``room`` > 0 positions.

    That is the transform of x and the taps before the inner factor and its exponents, each at the
    beginning of a flat tensor whose size tells no compiler how the length is cut.
    """
    batch, length, dim = x.shape
    y, kept, exponents = _outputs(x, kernel, skip, room)
    if batch == 0:
        return y, kept, exponents
    with on(x):
        run = _Kernels(length, dim, x.device)
        first = run.buffer(batch + 1, run.columns)
        run.mix_taps(kernel.contiguous(), None if skip is None else skip.contiguous(), first)
        run.mix_outer(x.contiguous(), first)
        mixed = _kept(run, batch, kept, exponents) if room else run.buffer(batch + 1, run.inner)
        run.middle_factor(kernels.mix_middle, first, mixed, batch + 1)
        frequencies = run.outer * run.middle
        product = run.buffer(batch, frequencies, first.values if room else mixed.values)
        run.multiply(mixed, product, batch)
        last = run.buffer(batch, run.outer, None if room else first.values)
        run.middle_factor(kernels.unmix_middle, product, last, batch)
        run.unmix_outer(last, y)
    return y, kept, exponents


def _kept(run: _Kernels, batch: int, values: Tensor, exponents: Tensor) -> _Buffer:
    """The buffer behind the middle factor at the beginning of two flat tensors."""
    return _Buffer(
        front(values, batch + 1, 2 * run.size, run.dim),
        front(exponents, batch + 1, run.blocks, run.inner),
    )


@_forward.register_fake
def _outputs(
    x: Tensor, kernel: Tensor, skip: Tensor | None, room: int
) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, dim = x.shape
    kept = x.new_empty((batch + 1) * room * 2 * dim, dtype=torch.float16)
    blocks = (dim + 15) // 16  # at most: one has 16 channels or more
    size = (batch + 1) * blocks * MOST_COLUMNS if room else 0
    return x.new_empty(x.shape), kept, x.new_empty(size, dtype=torch.int32)


@torch.library.custom_op("chela::longest_conv_backward", mutates_args=())
def _backward(
    dy: Tensor, kernel: Tensor, kept: Tensor, exponents: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, kernel and skip; the last one float32, also where there is no skip."""
    batch, length, dim = dy.shape
    dx = torch.empty(dy.shape, dtype=dy.dtype, device=dy.device)
    if batch == 0:
        return dx, torch.zeros_like(kernel), dy.new_zeros(dim, dtype=torch.float32)
    with on(dy):
        run = _Kernels(length, dim, dy.device)
        first = run.buffer(
            batch + 1, run.columns
        )  # of dy; the last place waits for the taps' gradient
        run.mix_outer(dy.contiguous(), first)
        mixed = run.buffer(batch + 1, run.inner)
        run.middle_factor(kernels.mix_middle, first, mixed, batch)
        product = run.buffer(batch + 1, run.outer * run.middle, mixed.values)
        run.multiply_backward(_kept(run, batch, kept, exponents), mixed, product.exponents, batch)
        last = run.buffer(batch + 1, run.outer, first.values)
        run.middle_factor(kernels.unmix_middle, product, last, batch + 1)
        run.unmix_outer(last, dx)
        dkernel, dskip = run.unmix_taps(last, kernel)
    return dx, dkernel, dskip


@_backward.register_fake
def _(dy: Tensor, kernel: Tensor, kept: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dkernel = torch.empty_like(kernel, memory_format=torch.contiguous_format)
    return dy.new_empty(dy.shape), dkernel, dy.new_empty(dy.shape[2], dtype=torch.float32)


register(_forward, _backward)
