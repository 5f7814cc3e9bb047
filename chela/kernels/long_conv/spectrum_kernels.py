"""Triton kernels around the FFT of a long kernel: what a dozen small PyTorch calls would do.

The formulas are in ``spectrum.py``. ``turns`` (N, 2) holds exp(-2 pi i n / 4 N).
"""

import triton
import triton.language as tl


@triton.jit
def fold(
    kernel,  # (DIRECTIONS, D, K)
    skip,  # (D,)
    turns,
    folded,  # (D, N, 2) float32
    scales,  # (D,) float32: 8 times the norm of a channel's taps
    L,
    K,
    N,
    DIRECTIONS: tl.constexpr,
    SKIP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """(past_n + i future_{N-n}) turns_n for one channel, with the skip in past_0."""
    d, D = tl.program_id(0), tl.num_programs(0)
    past, future = kernel + d * K, kernel + (D + d) * K
    squares = tl.zeros((BLOCK,), tl.float32)
    for first in tl.range(0, N, BLOCK):
        n = first + tl.arange(0, BLOCK)
        re = tl.load(past + n, (n < K) & (n < L), 0.0).to(tl.float32)
        im = tl.zeros((BLOCK,), tl.float32)
        if DIRECTIONS == 2:
            lag = N - n
            im = tl.load(future + (lag - 1), (lag >= 1) & (lag <= K) & (lag < L), 0.0)
            im = im.to(tl.float32)
        if SKIP:
            re += tl.where(n == 0, tl.load(skip + d).to(tl.float32), 0.0)
        squares += re * re + im * im
        turn_re = tl.load(turns + 2 * n, n < N, 0.0)
        turn_im = tl.load(turns + 2 * n + 1, n < N, 0.0)
        place = folded + 2 * (d * N + n)
        tl.store(place, re * turn_re - im * turn_im, n < N)
        tl.store(place + 1, re * turn_im + im * turn_re, n < N)
    tl.store(scales + d, 8.0 * tl.sqrt(tl.sum(squares, axis=0)))


@triton.jit
def arrange(
    values,  # (D, C, M, 2) float32
    scales,
    planes,  # (2, M, C, D) float32
    D,
    M,
    C,
    BM: tl.constexpr,
    BD: tl.constexpr,
):
    """planes = values / scales for one g, some f and some channels."""
    g = tl.program_id(0)
    f = tl.program_id(1) * BM + tl.arange(0, BM)
    d = tl.program_id(2) * BD + tl.arange(0, BD)
    inside = (f < M)[:, None] & (d < D)[None, :]
    scale = tl.load(scales + d, d < D, 1.0)
    factor = (1.0 / tl.where(scale > 0.0, scale, 1.0))[None, :]  # a channel without taps is zero
    source = values + 2 * ((d[None, :] * C + g) * M + f[:, None])
    target = planes + (f[:, None] * C + g) * D + d[None, :]
    tl.store(target, tl.load(source, inside, 0.0) * factor, inside)
    tl.store(target + M * C * D, tl.load(source + 1, inside, 0.0) * factor, inside)


@triton.jit
def collect(
    partial,  # (parts, 2, M, C, D) float32
    values,  # (D, C, M, 2) float32
    parts,
    D,
    M,
    C,
    BM: tl.constexpr,
    BD: tl.constexpr,
):
    """values = the sum of the parts, in a fixed order, for one g, some f and some channels."""
    g = tl.program_id(0)
    f = tl.program_id(1) * BM + tl.arange(0, BM)
    d = tl.program_id(2) * BD + tl.arange(0, BD)
    inside = (f < M)[:, None] & (d < D)[None, :]
    source = partial + (f[:, None] * C + g) * D + d[None, :]
    re, im = tl.zeros((BM, BD), tl.float32), tl.zeros((BM, BD), tl.float32)
    for _ in tl.range(0, parts):
        re += tl.load(source, inside, 0.0)
        im += tl.load(source + M * C * D, inside, 0.0)
        source += 2 * M * C * D
    target = values + 2 * ((d[None, :] * C + g) * M + f[:, None])
    tl.store(target, re, inside)
    tl.store(target + 1, im, inside)


@triton.jit
def unfold(
    folded,  # (D, N, 2) float32
    turns,
    dkernel,  # (DIRECTIONS, D, K)
    dskip,  # (D,) float32
    L,
    K,
    N,
    DIRECTIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The adjoint of ``fold``: folded_n conj(turns_n), real part to the past, imaginary beyond."""
    d, D = tl.program_id(0), tl.num_programs(0)
    folded += 2 * d * N
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    seen = (k < K) & (k < L)
    re, im = tl.load(folded + 2 * k, seen, 0.0), tl.load(folded + 2 * k + 1, seen, 0.0)
    turn_re, turn_im = tl.load(turns + 2 * k, seen, 0.0), tl.load(turns + 2 * k + 1, seen, 0.0)
    past = re * turn_re + im * turn_im
    tl.store(dkernel + d * K + k, past.to(dkernel.dtype.element_ty), k < K)
    tl.store(dskip + d + k, past, k == 0)
    if DIRECTIONS == 2:
        n = N - 1 - k  # of lag k + 1
        seen = (k < K) & (k < L - 1)
        re, im = tl.load(folded + 2 * n, seen, 0.0), tl.load(folded + 2 * n + 1, seen, 0.0)
        turn_re, turn_im = tl.load(turns + 2 * n, seen, 0.0), tl.load(turns + 2 * n + 1, seen, 0.0)
        future = im * turn_re - re * turn_im
        tl.store(dkernel + (D + d) * K + k, future.to(dkernel.dtype.element_ty), k < K)
