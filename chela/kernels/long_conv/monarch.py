"""The long convolution on tensor cores: a Fourier transform in two factors, never transposed.

With N = M C >= L, time t = c C + r and frequency j = f + M g, the transform of ``spectrum.py`` is

    X[f + M g] = sum_r W_f[g, r] sum_c F[f, c] x[c C + r],
    F[f, c] = exp(-2 pi i (f + 1/4) c / M),   W_f[g, r] = exp(-2 pi i ((f + 1/4) / N + g / C) r),

(a Monarch factorisation; Fu et al. 2023 use one for long convolutions), so that the convolution is
y = F^T W^T K W F x with real matrices, two rows or columns for each complex number. dx is the same
with conj(K), and dK = sum_b conj(W F x) W F dy. A few sequences go through all kernels before the
next ones follow, so that what lies between the kernels stays in the L2 cache.

O(L sqrt(L)) operations; what counts at the lengths served is that they are dense. A result is as
exact as float16 products are, about 3e-4 of the norm before the last rounding, for bfloat16 and
float16 x of any magnitude. As in every Fourier transform a value is touched by all others of its
sequence at that relative size, later ones included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from chela.kernels.long_conv import monarch_kernels as kernels
from chela.kernels.long_conv.factors import factors, padded_rows
from chela.kernels.long_conv.spectrum import spectrum, spectrum_gradient

INTERPRETED = triton.knobs.runtime.interpret  # as the kernels were when they were defined
SCRATCH_BYTES = 2**25  # of all sequences in flight; leaves room in an L2 cache of 50 MB


@dataclass(frozen=True)
class Plan:
    """How a shape is cut and launched; by measurement on an H200."""

    rows: int  # M
    columns: int  # C
    block: int  # channels per program of F, which share an exponent
    mix_rows: int  # rows of F at once
    mix_warps: int
    mix_stages: int
    unmix_rows: int
    unmix_warps: int
    unmix_stages: int
    tile: int  # channels per program of W
    multiply_warps: int
    multiply_stages: int
    backward_tile: int
    backward_warps: int
    backward_stages: int
    programs: int  # for all frequencies and channels together, backward as well
    batch: int  # sequences in flight


def factor_sizes(length: int) -> tuple[int, int]:
    """M and C with M C >= length, at most a quarter more; few pairs, each has its own tables.

    Comparisons only, so that a compiler may trace it with a symbolic length.
    """
    columns = 16 if length <= 1024 else 32 if length <= 2048 else 64
    rows = (length + columns - 1) // columns
    step = 1
    while step * 8 < rows:
        step *= 2
    return (rows + step - 1) // step * step, columns


def plan(length: int, dim: int) -> Plan:
    """The cut for x of (B, length, dim)."""
    rows, columns = factor_sizes(length)
    block = min(64 if rows > 256 else 128, max(16, 1 << (dim - 1).bit_length()))
    return Plan(
        rows=rows,
        columns=columns,
        block=block,
        mix_rows=min(64 if rows > 128 else 128, 2 * padded_rows(rows)),
        mix_warps=8 if rows > 64 else 4,
        mix_stages=1,
        unmix_rows=min(64, 2 * padded_rows(rows)),
        unmix_warps=8 if rows > 64 else 4,
        unmix_stages=2,
        tile=min(block, 64),
        multiply_warps=4 if columns < 64 else 8,
        multiply_stages=3,
        backward_tile=min(block, 64),
        backward_warps=4 if columns < 64 else 8,
        backward_stages=2,
        programs=132 * 4,
        batch=max(1, SCRATCH_BYTES // (4 * rows * columns * dim)),
    )


class _Kernels:
    """The launches for one shape, spectrum and device."""

    def __init__(self, cut: Plan, x: Tensor, spectrum: Tensor, scales: Tensor) -> None:
        self.cut, self.spectrum, self.scales = cut, spectrum, scales
        self.length, self.dim = x.shape[1:]
        self.table, self.matrices, _ = factors(cut.rows, cut.columns, x.device)
        self.blocks = triton.cdiv(self.dim, cut.block)

    def programs(self, batch: int, tile: int) -> tuple[int, int]:
        """One per frequency and ``tile`` channels, and how many share the sequences of each."""
        tiles = self.cut.rows * triton.cdiv(self.dim, tile)
        return tiles, max(1, min(batch, self.cut.programs // tiles))

    def mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """F x and its exponents."""
        batch, cut = x.shape[0], self.cut
        shape = (batch, cut.rows, 2, cut.columns, self.dim)
        mixed = torch.empty(shape, dtype=torch.float16, device=x.device)
        exponents = x.new_empty((batch, self.blocks, cut.columns), dtype=torch.int32)
        kernels.mix_blocks[(cut.columns * self.blocks, batch)](
            x, self.table, mixed, exponents, self.length, self.dim, cut.rows, cut.columns,
            BQ=cut.mix_rows, BK=self.table.shape[1], BN=cut.block,
            num_warps=cut.mix_warps, num_stages=cut.mix_stages,
        )  # fmt: skip
        return mixed, exponents

    def multiply(self, mixed: Tensor, exponents: Tensor) -> None:
        """W^T K W in place."""
        batch, cut = mixed.shape[0], self.cut
        kernels.multiply_frequencies[self.programs(batch, cut.tile)](
            mixed, self.matrices, self.spectrum, exponents, batch, self.dim, cut.rows,
            C=cut.columns, BN=cut.block, BD=cut.tile,
            num_warps=cut.multiply_warps, num_stages=cut.multiply_stages,
        )  # fmt: skip

    def multiply_backward(
        self,
        mixed_x: Tensor,
        exponents_x: Tensor,
        mixed_dy: Tensor,
        exponents_dy: Tensor,
        partial: Tensor,
        add: bool,
    ) -> None:
        """W^T conj(K) W in place on mixed_dy, and the spectrum's gradient into ``partial``."""
        cut = self.cut
        tiles, _ = self.programs(1, cut.backward_tile)
        kernels.multiply_frequencies_backward[(tiles, partial.shape[0])](
            mixed_x, mixed_dy, self.matrices, self.spectrum, exponents_x, exponents_dy, partial,
            mixed_x.shape[0], self.dim, cut.rows,
            C=cut.columns, BN=cut.block, BD=cut.backward_tile, ADD=add,
            num_warps=cut.backward_warps, num_stages=cut.backward_stages,
        )  # fmt: skip

    def unmix(self, mixed: Tensor, exponents: Tensor, y: Tensor) -> None:
        """y = F^T mixed."""
        batch, cut = mixed.shape[0], self.cut
        kernels.unmix_blocks[(cut.columns * self.blocks, batch)](
            mixed, self.table, exponents, self.scales, y, self.length, self.dim, cut.rows,
            C=cut.columns, BQ=cut.unmix_rows, BK=self.table.shape[1], BN=cut.block,
            num_warps=cut.unmix_warps, num_stages=cut.unmix_stages,
        )  # fmt: skip


def convolve(x: Tensor, kernel: Tensor, skip: Tensor | None) -> Tensor:
    """``long_conv.convolve`` after its checks, for what ``scheme`` calls monarch.

    Raises:
        ValueError: a device that Triton does not serve.
    """
    if not x.is_cuda and not INTERPRETED:
        raise ValueError(f"x is on {x.device}: Triton needs a GPU; use implementation='torch'")
    y, _, _ = _forward(x, kernel, skip)
    return y


@torch.library.custom_op("chela::long_conv", mutates_args=())
def _forward(x: Tensor, kernel: Tensor, skip: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """y, and for the gradient the scaled spectrum (2, M, C, D) and its scales (D,)."""
    cut = plan(*x.shape[1:])
    x = x.contiguous()
    y = torch.empty_like(x)
    with torch.cuda.device_of(x):
        _, _, turns = factors(cut.rows, cut.columns, x.device)
        values, scales = spectrum(kernel, skip, x.shape[1], cut.rows, cut.columns, turns)
        run = _Kernels(cut, x, values, scales)
        for first in range(0, x.shape[0], cut.batch):
            part = slice(first, first + cut.batch)
            mixed, exponents = run.mix(x[part])
            run.multiply(mixed, exponents)
            run.unmix(mixed, exponents, y[part])
    return y, values, scales


@_forward.register_fake
def _(x: Tensor, kernel: Tensor, skip: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    _, length, dim = x.shape
    values = x.new_empty((2, *factor_sizes(length), dim), dtype=torch.float32)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    return y, values, values.new_empty(dim)


@torch.library.custom_op("chela::long_conv_backward", mutates_args=())
def _backward(
    dy: Tensor, x: Tensor, kernel: Tensor, values: Tensor, scales: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, kernel and skip; the last one float32, also where there is no skip."""
    batch, length, dim = x.shape
    cut = plan(length, dim)
    dy, x = dy.contiguous(), x.contiguous()
    dx = torch.empty_like(x)
    if batch == 0:
        return dx, torch.zeros_like(kernel), values.new_zeros(dim)
    with torch.cuda.device_of(x):
        run = _Kernels(cut, x, values, scales)
        _, splits = run.programs(min(batch, cut.batch), cut.backward_tile)
        partial = values.new_empty((splits, *values.shape))
        for first in range(0, batch, cut.batch):
            part = slice(first, first + cut.batch)
            mixed_x, exponents_x = run.mix(x[part])
            mixed_dy, exponents_dy = run.mix(dy[part])
            run.multiply_backward(
                mixed_x, exponents_x, mixed_dy, exponents_dy, partial, add=first > 0
            )
            run.unmix(mixed_dy, exponents_dy, dx[part])
        _, _, turns = factors(cut.rows, cut.columns, x.device)
        dkernel, dskip = spectrum_gradient(partial, kernel, length, turns)
    return dx, dkernel, dskip


@_backward.register_fake
def _(
    dy: Tensor, x: Tensor, kernel: Tensor, values: Tensor, scales: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    dkernel = torch.empty_like(kernel, memory_format=torch.contiguous_format)
    return dx, dkernel, values.new_empty(x.shape[2])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, kernel, skip = inputs
    ctx.skip_dtype = None if skip is None else skip.dtype
    ctx.save_for_backward(x, kernel, *output[1:])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dy: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return None, None, None
    dx, dkernel, dskip = _backward(dy, *ctx.saved_tensors)
    return dx, dkernel, None if ctx.skip_dtype is None else dskip.to(ctx.skip_dtype)


def _no_second_order(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    raise RuntimeError(
        "the Triton long convolution has no second-order gradients; use implementation='torch'"
    )


_forward.register_autograd(_gradients, setup_context=_save)
_backward.register_autograd(_no_second_order)
