"""Triton kernels of sums of exponentials, in float32 but for angles.

A program walks along a channel's taps, BL at a time: exp((first + j) s) is the product of
exp(first s), N numbers that are new in each tile, and exp(j s), which stay in registers. Neither is
a recurrence, whose error would grow with the lag.
"""

import triton
import triton.language as tl


@triton.jit
def _power(rate, turns, lag):
    """Real and imaginary part of exp(lag s); ``turns`` are those of s per tap, in float64.

    In float64 until whole turns are off, as float32 knows thousands of turns to a thousandth. Two
    float32 numbers in its place would be as exact only where a compiler fuses no product and sum.
    """
    turned = turns * lag
    phase = 6.283185307179586 * (turned - tl.floor(turned + 0.5)).to(tl.float32)
    size = tl.exp(rate * lag.to(tl.float32))
    return size * tl.cos(phase), size * tl.sin(phase)


@triton.jit
def _modes(rate, angle, d, n, N, BN: tl.constexpr, BL: tl.constexpr):
    """Rates and turns (BN,) of channel d, and exp(j s) for j < BL (BN, BL)."""
    r = tl.load(rate + d * N + n, mask=n < N, other=0.0)
    turns = tl.load(angle + d * N + n, mask=n < N, other=0.0).to(tl.float64)
    turns *= 0.15915494309189535  # 1 / 2 pi
    lags = (tl.arange(0, BL)[None, :] + tl.zeros((BN, 1), tl.int32)).to(tl.float64)  # (BN, BL)
    fine_real, fine_imag = _power(r[:, None], turns[:, None], lags)
    return r, turns, fine_real, fine_imag


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
    TILES: tl.constexpr,
):
    """TILES tiles of the taps of one channel and direction."""
    row = tl.program_id(0)
    start = tl.program_id(1) * TILES * BL
    n, j = tl.arange(0, BN), tl.arange(0, BL)
    r, turns, fine_real, fine_imag = _modes(rate, angle, row % D, n, N, BN, BL)
    a = tl.load(real + row * N + n, mask=n < N, other=0.0)
    b = tl.load(imag + row * N + n, mask=n < N, other=0.0)
    out += row.to(tl.int64) * L
    for first in tl.range(start, min(start + TILES * BL, L), BL):
        lag = (first + tl.zeros((BN,), tl.int32)).to(tl.float64)
        coarse_real, coarse_imag = _power(r, turns, lag)
        x = a * coarse_real - b * coarse_imag
        y = a * coarse_imag + b * coarse_real
        taps = tl.sum(x[:, None] * fine_real - y[:, None] * fine_imag, axis=0)  # (BL,)
        tl.store(out + first + j, taps, mask=first + j < L)


@triton.jit
def exponential_sums_backward(
    rate,  # (D, N)
    angle,
    real,  # (K, D, N)
    imag,
    dout,  # (K, D, L)
    drate,  # (D, N)
    dangle,
    dreal,  # (K, D, N)
    dimag,
    L,
    D,
    N,
    K: tl.constexpr,
    BN: tl.constexpr,
    BL: tl.constexpr,
):
    """All gradients of one channel, from P = sum_l dout_l exp(l s), Q = sum_l l dout_l exp(l s).

    Both are sums over j of exp(j s) times a sum over tiles, which each thread makes for itself.
    """
    d = tl.program_id(0)
    n, j = tl.arange(0, BN), tl.arange(0, BL)
    r, turns, fine_real, fine_imag = _modes(rate, angle, d, n, N, BN, BL)
    sum_rate = tl.zeros((BN,), tl.float32)
    sum_angle = tl.zeros((BN,), tl.float32)
    for k in tl.static_range(K):
        row = k * D + d
        u_real = tl.zeros((BN, BL), tl.float32)  # sum over tiles of dout exp(first s)
        u_imag = tl.zeros((BN, BL), tl.float32)
        w_real = tl.zeros((BN, BL), tl.float32)  # the same times first
        w_imag = tl.zeros((BN, BL), tl.float32)
        upstream = dout + row.to(tl.int64) * L
        for first in tl.range(0, L, BL):
            g = tl.load(upstream + first + j, mask=first + j < L, other=0.0)[None, :]
            lag = (first + tl.zeros((BN,), tl.int32)).to(tl.float64)
            coarse_real, coarse_imag = _power(r, turns, lag)
            far = lag.to(tl.float32)
            u_real += coarse_real[:, None] * g
            u_imag += coarse_imag[:, None] * g
            w_real += (far * coarse_real)[:, None] * g
            w_imag += (far * coarse_imag)[:, None] * g
        w_real += u_real * j.to(tl.float32)[None, :]
        w_imag += u_imag * j.to(tl.float32)[None, :]
        p_real = tl.sum(u_real * fine_real - u_imag * fine_imag, axis=1)
        p_imag = tl.sum(u_real * fine_imag + u_imag * fine_real, axis=1)
        q_real = tl.sum(w_real * fine_real - w_imag * fine_imag, axis=1)
        q_imag = tl.sum(w_real * fine_imag + w_imag * fine_real, axis=1)
        a = tl.load(real + row * N + n, mask=n < N, other=0.0)
        b = tl.load(imag + row * N + n, mask=n < N, other=0.0)
        sum_rate += a * q_real - b * q_imag
        sum_angle -= a * q_imag + b * q_real
        tl.store(dreal + row * N + n, p_real, mask=n < N)
        tl.store(dimag + row * N + n, -p_imag, mask=n < N)
    tl.store(drate + d * N + n, sum_rate, mask=n < N)
    tl.store(dangle + d * N + n, sum_angle, mask=n < N)
