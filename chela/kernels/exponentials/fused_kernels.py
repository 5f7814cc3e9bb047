"""Triton kernels of sums of exponentials, all in float32.

A program owns a channel and walks along its taps, BL at a time: exp((first + j) s) is the product
of exp(first s), N numbers that are new in each tile, and exp(j s), which stay in registers. Neither
is a recurrence, whose error would grow with the lag.
"""

import triton
import triton.language as tl


@triton.jit
def _turns(angle):
    """The part of a turn that an angle is per tap, less its whole turns, as a sum hi + lo.

    l hi is then rounded only after whole turns are taken off again: at lag 16,384 the angle itself
    times l would be wrong by a thousandth.
    """
    turns = angle * 0.15915493667125702  # 1 / 2 pi in float32; the next line has the rest of it
    lo = tl.fma(angle, 0.15915493667125702, -turns) + angle * 6.420638e-9
    return turns - tl.floor(turns + 0.5), lo


@triton.jit
def _power(rate, hi, lo, lag):
    """Real and imaginary part of exp(lag s)."""
    turns = hi * lag
    rest = tl.fma(hi, lag, -turns) + lo * lag
    phase = 6.283185307179586 * (turns - tl.floor(turns + 0.5) + rest)
    size = tl.exp(rate * lag)
    return size * tl.cos(phase), size * tl.sin(phase)


@triton.jit
def _modes(rate, angle, d, n, N, BN: tl.constexpr, BL: tl.constexpr):
    """Rates and turns (BN,) of channel d, and exp(j s) for j < BL (BN, BL)."""
    r = tl.load(rate + d * N + n, mask=n < N, other=0.0)
    hi, lo = _turns(tl.load(angle + d * N + n, mask=n < N, other=0.0))
    lags = (tl.arange(0, BL)[None, :] + tl.zeros((BN, 1), tl.int32)).to(tl.float32)  # (BN, BL)
    fine_real, fine_imag = _power(r[:, None], hi[:, None], lo[:, None], lags)
    return r, hi, lo, fine_real, fine_imag


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
):
    """The taps of one channel and direction."""
    row = tl.program_id(0)
    n, j = tl.arange(0, BN), tl.arange(0, BL)
    r, hi, lo, fine_real, fine_imag = _modes(rate, angle, row % D, n, N, BN, BL)
    a = tl.load(real + row * N + n, mask=n < N, other=0.0)
    b = tl.load(imag + row * N + n, mask=n < N, other=0.0)
    out += row.to(tl.int64) * L
    for first in tl.range(0, L, BL):
        lag = (first + tl.zeros((BN,), tl.int32)).to(tl.float32)
        coarse_real, coarse_imag = _power(r, hi, lo, lag)
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
    """All gradients of one channel, from P = sum_l dout_l exp(l s), Q = sum_l l dout_l exp(l s)."""
    d = tl.program_id(0)
    n, j = tl.arange(0, BN), tl.arange(0, BL)
    r, hi, lo, fine_real, fine_imag = _modes(rate, angle, d, n, N, BN, BL)
    sum_rate = tl.zeros((BN,), tl.float32)
    sum_angle = tl.zeros((BN,), tl.float32)
    for k in tl.static_range(K):
        row = k * D + d
        p_real = tl.zeros((BN,), tl.float32)
        p_imag = tl.zeros((BN,), tl.float32)
        q_real = tl.zeros((BN,), tl.float32)
        q_imag = tl.zeros((BN,), tl.float32)
        upstream = dout + row.to(tl.int64) * L
        for first in tl.range(0, L, BL):
            g = tl.load(upstream + first + j, mask=first + j < L, other=0.0)[None, :]
            gj = g * j.to(tl.float32)[None, :]
            h_real, h_imag = tl.sum(g * fine_real, axis=1), tl.sum(g * fine_imag, axis=1)
            lag = (first + tl.zeros((BN,), tl.int32)).to(tl.float32)
            t_real = lag * h_real + tl.sum(gj * fine_real, axis=1)
            t_imag = lag * h_imag + tl.sum(gj * fine_imag, axis=1)
            coarse_real, coarse_imag = _power(r, hi, lo, lag)
            p_real += coarse_real * h_real - coarse_imag * h_imag
            p_imag += coarse_real * h_imag + coarse_imag * h_real
            q_real += coarse_real * t_real - coarse_imag * t_imag
            q_imag += coarse_real * t_imag + coarse_imag * t_real
        a = tl.load(real + row * N + n, mask=n < N, other=0.0)
        b = tl.load(imag + row * N + n, mask=n < N, other=0.0)
        sum_rate += a * q_real - b * q_imag
        sum_angle -= a * q_imag + b * q_real
        tl.store(dreal + row * N + n, p_real, mask=n < N)
        tl.store(dimag + row * N + n, -p_imag, mask=n < N)
    tl.store(drate + d * N + n, sum_rate, mask=n < N)
    tl.store(dangle + d * N + n, sum_angle, mask=n < N)
