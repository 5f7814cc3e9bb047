"""Triton kernels of sums of exponentials, in float32 but for angles.

Tap first + j of a tile is a sum over exp(first s) exp(j s): those of T tiles are a product of two
matrices, the numbers of which the threads of a program share out and make once. Neither is made by
a recurrence, whose error would grow with the lag.
"""

import triton
import triton.language as tl

from chela.kernels.turn_kernels import cos_sin


@triton.jit
def _power(rate, turns, lag):
    """Real and imaginary part of exp(lag s); ``turns`` are those of s per tap, from ``_modes``."""
    cos, sin = cos_sin(turns, lag)
    size = tl.exp(rate * lag.to(tl.float32))
    return size * cos, size * sin


@triton.jit
def _modes(rate, angle, at, inside):
    """Rates, and turns per tap in 2^-64 of a turn, without whole ones, as int64."""
    r = tl.load(rate + at, mask=inside, other=0.0)
    radians = tl.load(angle + at, mask=inside, other=0.0)
    turns = radians.to(tl.float64) * 0.15915494309189535  # 1 / 2 pi
    turns = (turns - tl.floor(turns + 0.5)) * 18446744073709551616.0
    return r + 0.0 * radians, turns.to(tl.int64)  # an integer cannot be NaN: the rate is


@triton.jit
def exponential_sums_forward(
    rate,  # (D, N)
    angle,
    real,  # (K, D, N)
    imag,
    out,  # (K, D, L)
    L,
    D,
    N,
    BN: tl.constexpr,
    BL: tl.constexpr,
    T: tl.constexpr,
):
    """T tiles of BL taps of one channel and direction, from BN modes at a time."""
    row = tl.program_id(0)
    j = tl.arange(0, BL)
    first = (tl.program_id(1) * T + tl.arange(0, T)) * BL
    taps = tl.zeros((T, BL), tl.float32)
    for start in tl.range(0, N, BN):
        n = start + tl.arange(0, BN)
        inside = n < N
        r, turns = _modes(rate, angle, (row % D) * N + n, inside)
        a = tl.load(real + row * N + n, mask=inside, other=0.0)[None, :]
        b = tl.load(imag + row * N + n, mask=inside, other=0.0)[None, :]
        fine_real, fine_imag = _power(r[:, None], turns[:, None], j[None, :])  # (BN, BL)
        coarse_real, coarse_imag = _power(r[None, :], turns[None, :], first[:, None])  # (T, BN)
        x = a * coarse_real - b * coarse_imag
        y = -a * coarse_imag - b * coarse_real
        taps = tl.dot(x, fine_real, acc=taps, input_precision="ieee")
        taps = tl.dot(y, fine_imag, acc=taps, input_precision="ieee")
    at = first[:, None] + j[None, :]
    tl.store(out + row.to(tl.int64) * L + at, taps, mask=at < L)


@triton.jit
def exponential_sums_backward(
    rate,  # (D, N)
    angle,
    dout,  # (K, D, L)
    parts,  # (parts, K, 4, D, N): P and Q, real and imaginary part of each
    L,
    D,
    N,
    STEPS,
    BN: tl.constexpr,
    BL: tl.constexpr,
    T: tl.constexpr,
):
    """P = sum_l dout_l exp(l s) and Q = sum_l l dout_l exp(l s) of BN modes over a part of taps.

    Both are sums over j of exp(j s) times a sum over tiles; a part is T tiles, STEPS times.
    """
    row, part = tl.program_id(0), tl.program_id(1)
    n, j = tl.program_id(2) * BN + tl.arange(0, BN), tl.arange(0, BL)
    inside = n < N
    r, turns = _modes(rate, angle, (row % D) * N + n, inside)
    r, turns = r[:, None], turns[:, None]
    u_real = tl.zeros((BN, BL), tl.float32)  # sum over tiles of dout exp(first s)
    u_imag = tl.zeros((BN, BL), tl.float32)
    w_real = tl.zeros((BN, BL), tl.float32)  # the same times first
    w_imag = tl.zeros((BN, BL), tl.float32)
    dout += row.to(tl.int64) * L
    start = part * STEPS * T * BL
    for begin in tl.range(start, min(start + STEPS * T * BL, L), T * BL):
        first = begin + tl.arange(0, T) * BL
        at = first[:, None] + j[None, :]
        g = tl.load(dout + at, mask=at < L, other=0.0)  # (T, BL)
        coarse_real, coarse_imag = _power(r, turns, first[None, :])  # (BN, T)
        far = first.to(tl.float32)[None, :]
        u_real = tl.dot(coarse_real, g, acc=u_real, input_precision="ieee")
        u_imag = tl.dot(coarse_imag, g, acc=u_imag, input_precision="ieee")
        w_real = tl.dot(far * coarse_real, g, acc=w_real, input_precision="ieee")
        w_imag = tl.dot(far * coarse_imag, g, acc=w_imag, input_precision="ieee")
    w_real += u_real * j.to(tl.float32)[None, :]
    w_imag += u_imag * j.to(tl.float32)[None, :]
    fine_real, fine_imag = _power(r, turns, j[None, :])  # (BN, BL)
    p_real = tl.sum(u_real * fine_real - u_imag * fine_imag, axis=1)
    p_imag = tl.sum(u_real * fine_imag + u_imag * fine_real, axis=1)
    q_real = tl.sum(w_real * fine_real - w_imag * fine_imag, axis=1)
    q_imag = tl.sum(w_real * fine_imag + w_imag * fine_real, axis=1)
    place = part.to(tl.int64) * tl.num_programs(0) + row // D * D  # rows of all k before this one
    parts += place * 4 * N + (row % D) * N + n
    tl.store(parts, p_real, mask=inside)
    tl.store(parts + D * N, p_imag, mask=inside)
    tl.store(parts + 2 * D * N, q_real, mask=inside)
    tl.store(parts + 3 * D * N, q_imag, mask=inside)


@triton.jit
def _sum_of_parts(parts, count, stride, m, M, ROWS: tl.constexpr, BM: tl.constexpr):
    """The same number of all parts added up in a fixed order, (BM,)."""
    total = tl.zeros((ROWS, BM), tl.float32)
    for start in tl.range(0, count, ROWS):
        part = start + tl.arange(0, ROWS)[:, None]
        inside = (part < count) & (m < M)[None, :]
        total += tl.load(parts + part.to(tl.int64) * stride + m[None, :], mask=inside, other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
def exponential_sums_gradients(
    parts,  # (parts, K, 4, D, N)
    real,  # (K, D, N)
    imag,
    drate,  # (D, N)
    dangle,
    dreal,  # (K, D, N)
    dimag,
    count,
    M,  # D N
    K: tl.constexpr,
    ROWS: tl.constexpr,
    BM: tl.constexpr,
):
    """All gradients of BM modes from the parts of P and Q."""
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    sum_rate = tl.zeros((BM,), tl.float32)
    sum_angle = tl.zeros((BM,), tl.float32)
    for k in tl.static_range(K):
        own = parts + k * 4 * M
        p_real = _sum_of_parts(own, count, K * 4 * M, m, M, ROWS, BM)
        p_imag = _sum_of_parts(own + M, count, K * 4 * M, m, M, ROWS, BM)
        q_real = _sum_of_parts(own + 2 * M, count, K * 4 * M, m, M, ROWS, BM)
        q_imag = _sum_of_parts(own + 3 * M, count, K * 4 * M, m, M, ROWS, BM)
        a = tl.load(real + k * M + m, mask=m < M, other=0.0)
        b = tl.load(imag + k * M + m, mask=m < M, other=0.0)
        sum_rate += a * q_real - b * q_imag
        sum_angle -= a * q_imag + b * q_real
        tl.store(dreal + k * M + m, p_real, mask=m < M)
        tl.store(dimag + k * M + m, -p_imag, mask=m < M)
    tl.store(drate + m, sum_rate, mask=m < M)
    tl.store(dangle + m, sum_angle, mask=m < M)
