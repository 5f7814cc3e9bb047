"""Triton kernels of the longest convolutions: a Fourier transform in three factors.

``deep.py`` explains the factors: time is t = p Q + s with s = c C + r, and a frequency is
j = f + P (g + M h). Between the kernels lie, all in float16,

    (B, P, 2, Q, D)         after the outer factor, which mixes over p for each s
    (B, P M, 2, C, D)       after the middle one, which mixes over c for each f and r

and the inner factor mixes over r where frequencies are multiplied. A value is what is stored times
2^e; whoever writes a tile gives it an exponent, whoever reads tiles aligns them to the largest
exponent among them, and no pass over memory is needed for that. Channels are the columns of every
product, so that nothing is transposed but the taps (``deep_tap_kernels.py``).
"""

import triton
import triton.language as tl

from chela.kernels.long_conv.monarch_kernels import _transform, _transform_back
from chela.kernels.turn_kernels import cos_sin


@triton.jit
def _exponent(largest):
    """e with largest / 2^e in [2^6, 2^7): three factors' sums of it stay below float16's 2^16."""
    bits = largest.to(tl.int32, bitcast=True)
    return tl.maximum((bits >> 23) & 255, 13) - 133


@triton.jit
def _two_to(e):
    """2^e, and 0 from e = -127 down."""
    return (tl.minimum(tl.maximum(e + 127, 0), 254) << 23).to(tl.float32, bitcast=True)


@triton.jit
def mix_outer(
    x,  # (B, L, D)
    table,  # (2 P or more, BK) float16: F, zeros beyond P
    mixed,  # (B, P, 2, Q, D) float16
    exponents,  # (B, channel blocks, Q) int32
    L,
    D,
    P,
    Q,
    BQ: tl.constexpr,  # rows of F
    BK: tl.constexpr,  # >= P
    BN: tl.constexpr,  # channels
    CHUNKS: tl.constexpr,  # BQ CHUNKS >= 2 P
):
    """mixed[b, :, :, s] = F x[b, s::Q] for one b and every num_programs(1)-th s."""
    blocks = tl.cdiv(D, BN)
    block, chunk = tl.program_id(0) // CHUNKS, tl.program_id(0) % CHUNKS
    b = tl.program_id(2).to(tl.int64)
    q, p = chunk * BQ + tl.arange(0, BQ), tl.arange(0, BK)
    d = block * BN + tl.arange(0, BN)
    factor = tl.load(table + q[:, None] * BK + p[None, :])  # (BQ, BK)
    x += b * L * D + (p.to(tl.int64) * Q * D)[:, None] + d[None, :]
    mixed += b * 2 * P * Q * D + (q.to(tl.int64) * Q * D)[:, None] + d[None, :]
    exponents += (b * blocks + block) * Q
    valid = (q < 2 * P)[:, None] & (d < D)[None, :]
    for s in tl.range(tl.program_id(1), Q, tl.num_programs(1)):
        inside = ((p < P) & (p * Q + s < L))[:, None] & (d < D)[None, :]
        values = tl.load(x + s * D, inside, 0.0).to(tl.float32)  # (BK, BN)
        exponent = _exponent(tl.max(tl.abs(values)))
        product = tl.dot(factor, (values * _two_to(-exponent)).to(tl.float16))  # (BQ, BN)
        tl.store(mixed + s * D, product.to(tl.float16), valid)
        if chunk == 0:
            tl.store(exponents + s, exponent)


@triton.jit
def unmix_outer(
    mixed,  # (B, P, 2, Q, D) float16
    table,  # as above
    exponents,  # (B, channel blocks, P) int32
    y,  # (B, L, D)
    scale,
    L,
    D,
    P,
    Q,
    BP: tl.constexpr,  # rows of F^H
    BK: tl.constexpr,  # as above
    BN: tl.constexpr,
    CHUNKS: tl.constexpr,  # BP CHUNKS >= P
):
    """y[b, s::Q] = scale Re F^H mixed[b, :, :, s] for one b and some s."""
    blocks = tl.cdiv(D, BN)
    block, chunk = tl.program_id(0) // CHUNKS, tl.program_id(0) % CHUNKS
    b = tl.program_id(2).to(tl.int64)
    q, p = tl.arange(0, 2 * BK), chunk * BP + tl.arange(0, BP)
    d = block * BN + tl.arange(0, BN)
    factor = tl.load(table + q[:, None] * BK + p[None, :])  # (2 BK, BP)
    exponent = tl.load(exponents + (b * blocks + block) * P + q // 2, q < 2 * P, -1000)
    largest = tl.max(exponent, axis=0)
    align, unit = _two_to(exponent - largest).to(tl.float16)[:, None], scale * _two_to(largest)
    mixed += b * 2 * P * Q * D + (q.to(tl.int64) * Q * D)[:, None] + d[None, :]
    y += b * L * D + (p.to(tl.int64) * Q * D)[:, None] + d[None, :]
    valid = (q < 2 * P)[:, None] & (d < D)[None, :]
    for s in tl.range(tl.program_id(1), Q, tl.num_programs(1)):
        values = tl.load(mixed + s * D, valid, 0.0) * align
        inside = ((p < P) & (p * Q + s < L))[:, None] & (d < D)[None, :]
        product = tl.dot(tl.trans(factor), values) * unit  # (BP, BN)
        tl.store(y + s * D, product.to(y.dtype.element_ty), inside)


@triton.jit
def _turns(frequency, r, step):
    """Real part and minus the imaginary part of exp(-2 pi i (j + 1/4) r / N); step is 2^62 / N."""
    return cos_sin(step, (4 * frequency + 1) * r)


@triton.jit
def mix_middle(
    mixed,  # (B, P, 2, Q, D) float16
    matrices,  # (P, 2 M, 2 M) float16, their rows in alternating eights
    out,  # (B, P M, 2, C, D) float16
    exponents,  # (B, channel blocks, Q) int32
    aligned,  # (B, channel blocks, C) int32, of ``out``
    step,
    B,
    D,
    P,
    C,
    M: tl.constexpr,
    BR: tl.constexpr,  # rows of a matrix
    BN: tl.constexpr,
):
    """The middle factor and the turns that follow it, for one f and some b and r."""
    CHUNKS: tl.constexpr = 2 * M // BR
    H: tl.constexpr = BR // 2
    blocks, starts = tl.cdiv(D, BN), tl.num_programs(0) // (tl.cdiv(D, BN) * CHUNKS)
    f, chunk = tl.program_id(1), tl.program_id(0) % CHUNKS
    block = tl.program_id(0) // CHUNKS % blocks
    row, c = tl.arange(0, 2 * M), tl.arange(0, 2 * M) % M
    g = chunk * H + tl.arange(0, H)
    d = block * BN + tl.arange(0, BN)
    valid = (d < D)[None, :]
    w = chunk * BR + tl.arange(0, BR)
    w = tl.load(matrices + f * (4 * M * M) + w[:, None] * (2 * M) + row[None, :])  # (BR, 2 M)
    source = (f * 2 + row // M).to(tl.int64) * (M * C * D) + c * (C * D)
    target = (f * M + g).to(tl.int64) * (2 * C * D)
    for item in tl.range(tl.program_id(0) // (CHUNKS * blocks), B * C, starts):
        b, r = item // C, item % C
        place = b * blocks + block
        size = tl.cast(b, tl.int64) * 2 * P * M * C * D + r * D
        exponent = tl.load(exponents + place * (M * C) + c * C + r)
        largest = tl.max(exponent, axis=0)
        align = _two_to(exponent - largest).to(tl.float16)[:, None]
        x = tl.load(mixed + size + source[:, None] + d[None, :], valid, 0.0) * align  # (2 M, BN)
        re, im = _transform(w, x, H)  # (H, BN)
        cos, sin = _turns(f + P * g, r, step)
        cos, sin = cos[:, None], sin[:, None]
        cells = out + size + target[:, None] + d[None, :]
        tl.store(cells, (re * cos + im * sin).to(tl.float16), valid)
        tl.store(cells + C * D, (im * cos - re * sin).to(tl.float16), valid)
        if (f == 0) & (chunk == 0):
            tl.store(aligned + place * C + r, largest)


@triton.jit
def unmix_middle(
    mixed,  # (B, P M, 2, C, D) float16
    matrices,
    out,  # (B, P, 2, Q, D) float16
    exponents,  # (B, channel blocks, P M) int32
    aligned,  # (B, channel blocks, P) int32, of ``out``
    step,
    B,
    D,
    P,
    C,
    M: tl.constexpr,
    BR: tl.constexpr,
    BN: tl.constexpr,
):
    """The adjoint of ``mix_middle``."""
    CHUNKS: tl.constexpr = 2 * M // BR
    blocks, starts = tl.cdiv(D, BN), tl.num_programs(0) // (tl.cdiv(D, BN) * CHUNKS)
    f, chunk = tl.program_id(1), tl.program_id(0) % CHUNKS
    block = tl.program_id(0) // CHUNKS % blocks
    row = chunk * BR + tl.arange(0, BR)
    g = tl.arange(0, M)
    d = block * BN + tl.arange(0, BN)
    valid = (d < D)[None, :]
    w = g // 8 * 16 + g % 8  # rows of real parts, those of imaginary ones eight behind
    w = matrices + f * (4 * M * M) + w[:, None] * (2 * M) + row[None, :]
    w_re, w_im = tl.load(w), tl.load(w + 8 * (2 * M))  # (M, BR)
    source = (f * M + g).to(tl.int64) * (2 * C * D)
    target = (f * 2 + row // M).to(tl.int64) * (M * C * D) + row % M * (C * D)
    for item in tl.range(tl.program_id(0) // (CHUNKS * blocks), B * C, starts):
        b, r = item // C, item % C
        place = b * blocks + block
        size = tl.cast(b, tl.int64) * 2 * P * M * C * D + r * D
        exponent = tl.load(exponents + place * (M * P) + f * M + g)
        largest = tl.max(exponent, axis=0)
        align = _two_to(exponent - largest)
        cells = mixed + size + source[:, None] + d[None, :]
        re = tl.load(cells, valid, 0.0).to(tl.float32)  # (M, BN)
        im = tl.load(cells + C * D, valid, 0.0).to(tl.float32)
        cos, sin = _turns(f + P * g, r, step)
        cos, sin = (cos * align)[:, None], (sin * align)[:, None]
        z = tl.dot(tl.trans(w_re), (re * cos - im * sin).to(tl.float16))  # (BR, BN)
        z = tl.dot(tl.trans(w_im), (im * cos + re * sin).to(tl.float16), z)
        tl.store(out + size + target[:, None] + d[None, :], z.to(tl.float16), valid)
        if (r == 0) & (chunk == 0):
            tl.store(aligned + place * P + f, largest)


@triton.jit
def _load_aligned(mixed, aligned, b, frequency, block, d, D, F, C: tl.constexpr, blocks):
    """A frequency's values (2 C, BN) with one exponent, and that."""
    row = tl.arange(0, 2 * C)
    exponent = tl.load(aligned + (b * blocks + block) * C + row % C)
    largest = tl.max(exponent, axis=0)
    place = (tl.cast(b, tl.int64) * F + frequency) * 2 * C * D
    x = tl.load(mixed + place + row[:, None] * D + d[None, :], (d < D)[None, :], 0.0)
    return x * _two_to(exponent - largest).to(tl.float16)[:, None], largest


@triton.jit
def _store_back(mixed, exponents, re, im, unit, w, b, frequency, block, d, D, F, C: tl.constexpr):
    """The adjoint of the inner factor of values in 2^unit, and its exponent."""
    row = tl.arange(0, 2 * C)
    exponent = _exponent(tl.maximum(tl.max(tl.abs(re)), tl.max(tl.abs(im))))
    factor = _two_to(-exponent)
    z = _transform_back(w, re * factor, im * factor, C)  # (2 C, BN)
    place = (tl.cast(b, tl.int64) * F + frequency) * 2 * C * D
    tl.store(mixed + place + row[:, None] * D + d[None, :], z, (d < D)[None, :])
    blocks = tl.cdiv(D, d.shape[0])
    tl.store(exponents + (b * blocks + block) * F + frequency, exponent + unit)


@triton.jit
def multiply_spectra(
    mixed,  # (B + 1, F, 2, C, D) float16: x and, last, the taps
    out,  # (B, F, 2, C, D) float16, or ``mixed``
    matrix,  # (2 C, 2 C) float16: the inner factor
    aligned,  # (B + 1, channel blocks, C) int32
    exponents,  # (B or more, channel blocks, F) int32, of ``out``
    B,
    D,
    F,  # P M
    C: tl.constexpr,
    BN: tl.constexpr,
):
    """out = W^T K W x, where K = W taps, for one f and g and all b."""
    blocks = tl.cdiv(D, BN)
    frequency, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    d = block * BN + tl.arange(0, BN)
    row = tl.arange(0, 2 * C)
    w = tl.load(matrix + row[:, None] * (2 * C) + row[None, :])
    taps, unit_k = _load_aligned(mixed, aligned, B, frequency, block, d, D, F, C, blocks)
    k_re, k_im = _transform(w, taps, C)  # (C, BN)
    for b in tl.range(0, B):
        x, unit_x = _load_aligned(mixed, aligned, b, frequency, block, d, D, F, C, blocks)
        x_re, x_im = _transform(w, x, C)
        re, im = x_re * k_re - x_im * k_im, x_re * k_im + x_im * k_re
        unit = unit_x + unit_k
        _store_back(out, exponents, re, im, unit, w, b, frequency, block, d, D, F, C)


@triton.jit
def multiply_spectra_backward(
    mixed,  # as above
    mixed_dy,  # (B + 1, F, 2, C, D) float16: the upstream gradient; overwritten
    matrix,
    aligned,
    aligned_dy,  # (B or more, channel blocks, C) int32
    exponents,  # (B + 1, channel blocks, F) int32, of what is written
    B,
    D,
    F,
    C: tl.constexpr,
    BN: tl.constexpr,
):
    """mixed_dy[b] = W^T conj(K) W mixed_dy[b], and last W^T sum_b conj(W x) W dy."""
    blocks = tl.cdiv(D, BN)
    frequency, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    d = block * BN + tl.arange(0, BN)
    row = tl.arange(0, 2 * C)
    w = tl.load(matrix + row[:, None] * (2 * C) + row[None, :])
    taps, unit_k = _load_aligned(mixed, aligned, B, frequency, block, d, D, F, C, blocks)
    k_re, k_im = _transform(w, taps, C)  # (C, BN)
    dk_re, dk_im = tl.zeros((C, BN), tl.float32), tl.zeros((C, BN), tl.float32)
    for b in tl.range(0, B):
        x, unit_x = _load_aligned(mixed, aligned, b, frequency, block, d, D, F, C, blocks)
        dy, unit_y = _load_aligned(mixed_dy, aligned_dy, b, frequency, block, d, D, F, C, blocks)
        x_re, x_im = _transform(w, x, C)
        y_re, y_im = _transform(w, dy, C)
        factor = _two_to(unit_x + unit_y)
        dk_re += (y_re * x_re + y_im * x_im) * factor
        dk_im += (y_im * x_re - y_re * x_im) * factor
        re, im = y_re * k_re + y_im * k_im, y_im * k_re - y_re * k_im
        unit = unit_y + unit_k
        _store_back(mixed_dy, exponents, re, im, unit, w, b, frequency, block, d, D, F, C)
    _store_back(mixed_dy, exponents, dk_re, dk_im, 0, w, B, frequency, block, d, D, F, C)
