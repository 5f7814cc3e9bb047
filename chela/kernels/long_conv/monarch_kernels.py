"""Triton kernels of the long convolution as y = F^T W^T K W F x, all on tensor cores.

``monarch.py`` explains the factors. Time is t = c C + r (c a column of F, r inside a block) and a
frequency is j = f + M g. F mixes over c for each r, W_f mixes over r for each f, and K multiplies
every frequency of a channel, so that each kernel is a plain matrix product whose columns are
channels: nothing is transposed in memory. Between the kernels lies

    mixed (B, M, 2, C, D) float16      real and imaginary part of F x,

in units of 2^(e - 127) with an int32 exponent e (B, channel block, C), so that bfloat16's range
survives float16's precision. Operands are float16, sums float32.
"""

import triton
import triton.language as tl


@triton.jit
def _power(exponent):
    """2^(exponent - 127) for 1 <= exponent <= 254, and 0 below."""
    return (tl.maximum(exponent, 0) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _exponent(largest):
    """e with largest / 2^(e - 127) in [1, 2), kept where 2^(127 - e) exists as well."""
    bits = largest.to(tl.int32, bitcast=True)
    return tl.minimum(tl.maximum((bits >> 23) & 255, 1), 253)


@triton.jit
def mix_blocks(
    x,  # (B, L, D)
    table,  # (2 * M or more, BK) float16: F, zeros beyond M
    mixed,  # (B, M, 2, C, D) float16
    exponents,  # (B, channel blocks, C) int32
    L,
    D,
    M,
    C,
    BQ: tl.constexpr,  # rows of F at once
    BK: tl.constexpr,  # >= M
    BN: tl.constexpr,  # channels per block
):
    """mixed[b, :, :, r] = F x[b, r::C] for one r and one block of channels."""
    blocks = tl.cdiv(D, BN)
    r, block, b = tl.program_id(0) // blocks, tl.program_id(0) % blocks, tl.program_id(1)
    c = tl.arange(0, BK)
    d = block * BN + tl.arange(0, BN)
    t = c * C + r
    inside = ((c < M) & (t < L))[:, None] & (d < D)[None, :]
    x += b.to(tl.int64) * L * D
    values = tl.load(x + t[:, None] * D + d[None, :], inside, 0.0).to(tl.float32)  # (BK, BN)
    exponent = _exponent(tl.max(tl.max(tl.abs(values), axis=1), axis=0))
    tl.store(exponents + (b * blocks + block) * C + r, exponent)
    operand = (values * _power(254 - exponent)).to(tl.float16)
    mixed += (b.to(tl.int64) * 2 * M * C + r) * D
    for first in tl.range(0, 2 * M, BQ):
        q = first + tl.arange(0, BQ)
        factor = tl.load(table + q[:, None] * BK + c[None, :])  # (BQ, BK)
        product = tl.dot(factor, operand).to(tl.float16)  # (BQ, BN)
        valid = (q < 2 * M)[:, None] & (d < D)[None, :]
        tl.store(mixed + q[:, None] * (C * D) + d[None, :], product, valid)


@triton.jit
def unmix_blocks(
    mixed,  # (B, M, 2, C, D) float16
    table,  # as above
    exponents,  # (B, channel blocks, C) int32
    scales,  # (D,) float32
    y,  # (B, L, D)
    L,
    D,
    M,
    C: tl.constexpr,
    BQ: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
):
    """y[b, r::C] = F^T mixed[b, :, :, r], in the units of y."""
    blocks = tl.cdiv(D, BN)
    r, block, b = tl.program_id(0) // blocks, tl.program_id(0) % blocks, tl.program_id(1)
    c = tl.arange(0, BK)
    d = block * BN + tl.arange(0, BN)
    mixed += (b.to(tl.int64) * 2 * M * C + r) * D
    total = tl.zeros((BK, BN), tl.float32)
    for first in tl.range(0, 2 * M, BQ):
        q = first + tl.arange(0, BQ)
        factor = tl.load(table + q[:, None] * BK + c[None, :])  # (BQ, BK)
        valid = (q < 2 * M)[:, None] & (d < D)[None, :]
        values = tl.load(mixed + q[:, None] * (C * D) + d[None, :], valid, 0.0)  # (BQ, BN)
        total = tl.dot(tl.trans(factor), values, total)
    largest = tl.max(tl.load(exponents + (b * blocks + block) * C + tl.arange(0, C)), axis=0)
    total *= _power(largest) * tl.load(scales + d, d < D, 0.0)[None, :]
    t = c * C + r
    inside = ((c < M) & (t < L))[:, None] & (d < D)[None, :]
    y += b.to(tl.int64) * L * D
    tl.store(y + t[:, None] * D + d[None, :], total.to(y.dtype.element_ty), inside)


@triton.jit
def _load_mixed(mixed, exponents, b, f, block, blocks, d, D, M, C: tl.constexpr):
    """mixed[b, f] of some channels as (2 C, BD) float16 in one unit, and that unit's exponent."""
    row = tl.arange(0, 2 * C)
    mixed += (tl.cast(b, tl.int64) * M + f) * 2 * C * D
    values = tl.load(mixed + row[:, None] * D + d[None, :], (d < D)[None, :], 0.0)
    exponent = tl.load(exponents + (b * blocks + block) * C + row % C)  # (2 C,)
    largest = tl.max(exponent, axis=0)
    unit = _power(127 + exponent - largest)  # <= 1
    return (values.to(tl.float32) * unit[:, None]).to(tl.float16), largest


@triton.jit
def _transform(w, x, C: tl.constexpr):
    """W_f x as real and imaginary part, (C, BD) each.

    W's rows are eight real parts, then the same eight frequencies' imaginary parts, and so on: the
    tensor core leaves rows i and i + 8 of sixteen in one thread, and the two parts need no move.
    """
    z = tl.dot(w, x)  # (2 C, BD)
    z = tl.permute(tl.reshape(z, (C // 8, 2, 8, z.shape[1])), (0, 2, 3, 1))
    re, im = tl.split(z)
    return tl.reshape(re, (C, x.shape[1])), tl.reshape(im, (C, x.shape[1]))


@triton.jit
def _store_transposed(mixed, b, f, re, im, w, d, D, M, C: tl.constexpr):
    """mixed[b, f] = W_f^T (re, im)."""
    z = tl.join(re, im)  # (C, BD, 2)
    z = tl.permute(tl.reshape(z, (C // 8, 8, re.shape[1], 2)), (0, 3, 1, 2))
    product = tl.dot(tl.trans(w), tl.reshape(z, (2 * C, re.shape[1])).to(tl.float16))
    row = tl.arange(0, 2 * C)
    mixed += (tl.cast(b, tl.int64) * M + f) * 2 * C * D
    tl.store(mixed + row[:, None] * D + d[None, :], product.to(tl.float16), (d < D)[None, :])


@triton.jit
def multiply_frequencies(
    mixed,  # (B, M, 2, C, D) float16, overwritten
    matrices,  # (M, 2 C, 2 C) float16: W_f
    spectrum,  # (2, M, C, D) float32: K
    exponents,  # (B, channel blocks of BN, C) int32
    B,
    D,
    M,
    C: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,  # channels per program, a part of BN
):
    """mixed[b, f] = W_f^T K_f W_f mixed[b, f] for one f and every program_id(1)-th b."""
    tiles = tl.cdiv(D, BD)
    f, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    block, blocks = tile * BD // BN, tl.cdiv(D, BN)
    d = tile * BD + tl.arange(0, BD)
    g, row = tl.arange(0, C), tl.arange(0, 2 * C)
    w = tl.load(matrices + f * (4 * C * C) + row[:, None] * (2 * C) + row[None, :])  # (2 C, 2 C)
    spectrum += f * (C * D) + g[:, None] * D + d[None, :]
    k_re = tl.load(spectrum, (d < D)[None, :], 0.0)  # (C, BD)
    k_im = tl.load(spectrum + M * C * D, (d < D)[None, :], 0.0)
    for b in tl.range(tl.program_id(1), B, tl.num_programs(1)):
        x, _ = _load_mixed(mixed, exponents, b, f, block, blocks, d, D, M, C)
        z_re, z_im = _transform(w, x, C)  # (C, BD)
        re, im = z_re * k_re - z_im * k_im, z_re * k_im + z_im * k_re
        _store_transposed(mixed, b, f, re, im, w, d, D, M, C)


@triton.jit
def multiply_frequencies_backward(
    mixed_x,  # (B, M, 2, C, D) float16
    mixed_dy,  # the same of the upstream gradient, overwritten
    matrices,
    spectrum,
    exponents_x,
    exponents_dy,
    partial,  # (programs on axis 1, 2, M, C, D) float32
    B,
    D,
    M,
    C: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
    ADD: tl.constexpr,  # to what partial already holds
):
    """mixed_dy[b, f] = W_f^T conj(K_f) W_f mixed_dy[b, f], and dK = sum_b conj(W F x) W F dy."""
    tiles = tl.cdiv(D, BD)
    f, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    block, blocks = tile * BD // BN, tl.cdiv(D, BN)
    d = tile * BD + tl.arange(0, BD)
    g, row = tl.arange(0, C), tl.arange(0, 2 * C)
    w = tl.load(matrices + f * (4 * C * C) + row[:, None] * (2 * C) + row[None, :])  # (2 C, 2 C)
    place = f * (C * D) + g[:, None] * D + d[None, :]
    valid = (d < D)[None, :]
    k_re = tl.load(spectrum + place, valid, 0.0)  # (C, BD)
    k_im = tl.load(spectrum + M * C * D + place, valid, 0.0)
    partial += tl.program_id(1).to(tl.int64) * 2 * M * C * D + place
    if ADD:
        dk_re = tl.load(partial, valid, 0.0)
        dk_im = tl.load(partial + M * C * D, valid, 0.0)
    else:
        dk_re, dk_im = tl.zeros((C, BD), tl.float32), tl.zeros((C, BD), tl.float32)
    for b in tl.range(tl.program_id(1), B, tl.num_programs(1)):
        x, exponent_x = _load_mixed(mixed_x, exponents_x, b, f, block, blocks, d, D, M, C)
        x_re, x_im = _transform(w, x, C)  # (C, BD)
        dy, exponent_dy = _load_mixed(mixed_dy, exponents_dy, b, f, block, blocks, d, D, M, C)
        dy_re, dy_im = _transform(w, dy, C)
        unit = _power(exponent_x) * _power(exponent_dy)
        dk_re += (dy_re * x_re + dy_im * x_im) * unit
        dk_im += (dy_im * x_re - dy_re * x_im) * unit
        re, im = dy_re * k_re + dy_im * k_im, dy_im * k_re - dy_re * k_im
        _store_transposed(mixed_dy, b, f, re, im, w, d, D, M, C)
    tl.store(partial, dk_re, valid)
    tl.store(partial + M * C * D, dk_im, valid)
