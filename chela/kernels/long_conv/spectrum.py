"""A long kernel's spectrum at the frequencies where zero padding costs nothing.

A linear convolution needs a transform of length 2 N >= 2 L over real signals. Taken at the odd
frequencies (j + 1/2) / (2 N), whose circular convolution wraps around with a minus sign, half of
the values are the conjugates of the other half, and the even j alone remain: for a signal that is
zero from N on,

    X_j = sum_n x_n exp(-2 pi i (j + 1/4) n / N),       j = 0 .. N - 1,

and y_n = Re (1/N) sum_j K_j X_j exp(2 pi i (j + 1/4) n / N). The kernel is not zero there: lag -l
lies at index 2 N - l and, wrapped, at N - l with a factor i.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from chela.kernels.long_conv import spectrum_kernels as kernels

TILE = 32  # of the transpositions: whole 128-byte lines of float32 on the channels' side


def spectrum(
    kernel: Tensor, skip: Tensor | None, length: int, rows: int, columns: int, turns: Tensor
) -> tuple[Tensor, Tensor]:
    """K_j of N = rows * columns >= length lags per direction, as the other kernels read it.

    Args:
        kernel: (directions, D, K); taps of ``length`` lags and more are not read.
        skip: (D,), added to the tap of lag 0.
        length: L.
        rows: M.
        columns: C.
        turns: (N, 2) float32 of ``factors``.

    Returns:
        K / scale (2, M, C, D), real and imaginary parts, with frequency j = f + M g at [:, f, g],
        and scale (D,), both float32. A scale is 8 times the norm of the channel's taps, so that
        |K| / scale <= sqrt(2 N) / 8: float16 then holds products with unit-norm transforms.
    """
    directions, dim, taps = kernel.shape
    kernel, size = kernel.contiguous(), rows * columns
    folded = torch.empty(dim, size, 2, dtype=torch.float32, device=kernel.device)
    scales = folded.new_empty(dim)
    kernels.fold[(dim,)](
        kernel, kernel if skip is None else skip.contiguous(), turns, folded, scales,
        length, taps, size, DIRECTIONS=directions, SKIP=skip is not None, BLOCK=_block(size),
    )  # fmt: skip
    values = torch.view_as_real(torch.fft.fft(torch.view_as_complex(folded)))  # (D, N, 2)
    planes = folded.new_empty(2, rows, columns, dim)
    kernels.arrange[_tiles(rows, columns, dim)](
        values, scales, planes, dim, rows, columns, BM=TILE, BD=TILE
    )
    return planes, scales


def spectrum_gradient(
    partial: Tensor, kernel: Tensor, length: int, turns: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of kernel and skip, given that of the spectrum K as summands.

    The adjoint of ``spectrum`` before its scaling.

    Args:
        partial: (parts, 2, M, C, D) float32.
        kernel: (directions, D, K), for its shape and dtype.
        length: L.
        turns: as above.

    Returns:
        Gradients like the kernel's, and (D,) float32.
    """
    directions, dim, taps = kernel.shape
    parts, _, rows, columns, _ = partial.shape
    size = rows * columns
    values = partial.new_empty(dim, size, 2)
    kernels.collect[_tiles(rows, columns, dim)](
        partial, values, parts, dim, rows, columns, BM=TILE, BD=TILE
    )
    folded = torch.fft.ifft(torch.view_as_complex(values), norm="forward")  # the adjoint: no 1 / N
    dkernel = torch.empty_like(kernel, memory_format=torch.contiguous_format)
    dskip = partial.new_empty(dim)
    block = _block(taps)
    kernels.unfold[(dim, triton.cdiv(taps, block))](
        torch.view_as_real(folded), turns, dkernel, dskip, length, taps, size,
        DIRECTIONS=directions, BLOCK=block,
    )  # fmt: skip
    return dkernel, dskip


def _tiles(rows: int, columns: int, dim: int) -> tuple[int, int, int]:
    return columns, triton.cdiv(rows, TILE), triton.cdiv(dim, TILE)


def _block(size: int) -> int:
    """Taps at once: all of a short kernel, else what a program holds without spilling."""
    return min(1024, triton.next_power_of_2(size))
