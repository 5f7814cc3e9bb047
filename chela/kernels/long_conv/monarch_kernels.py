"""Triton kernels of the long convolution as y = F^T W^T K W F x, all on tensor cores.

``monarch.py`` explains the factors. Time is t = c C + r (c a column of F, r inside a block) and a
frequency is j = f + M g. F mixes over c for each r, W_f mixes over r for each f, and K multiplies
every frequency of a channel, so that each kernel is a plain matrix product whose columns are
channels: nothing is transposed in memory. Between the kernels lies

    mixed (B, M, 2, C, D) float16      real and imaginary part of F x,

where each sequence and block of channels has a unit of its own, a power of two, so that bfloat16's
range survives float16's precision. Operands are float16, sums float32.
"""

import triton
import triton.language as tl


@triton.jit
def _power(exponent):
    """2^(exponent - 127) for 1 <= exponent <= 254, and 0 below."""
    return (tl.maximum(exponent, 0) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _tile(blocks, C):
    """This program's block, r and b; blocks vary fastest, neighbours read neighbouring memory."""
    tile = tl.program_id(0)
    return tile % blocks, (tile // blocks) % C, tile // (blocks * C)


@triton.jit
def _exponent(largest):
    """e with largest / 2^(e - 127) in [2^-6, 2^2).

    In steps of eight, so that tiles of one tensor mostly agree; small enough for what sums up over
    a sequence and a kernel to stay below 2^16, large enough to stay normal in float16.
    """
    bits = largest.to(tl.int32, bitcast=True)
    return tl.minimum((((bits >> 23) & 255) & 248) + 6, 253)  # 2^(127 - e) has to exist as well


@triton.jit
def mix_blocks(
    x,  # (B, L, D)
    table,  # (2 * M or more, BK) float16: F, zeros beyond M
    mixed,  # (B, M, 2, C, D) float16, each tile in the unit of its exponent
    exponents,  # (B, channel blocks, C) int32
    L,
    D,
    M,
    C,
    BQ: tl.constexpr,  # rows of F at once
    BK: tl.constexpr,  # >= M
    BN: tl.constexpr,  # channels per block
):
    """mixed[b, :, :, r] = F x[b, r::C] for one b, r and block of channels."""
    blocks = tl.cdiv(D, BN)
    block, r, b = _tile(blocks, C)
    c = tl.arange(0, BK)
    d = block * BN + tl.arange(0, BN)
    t = c * C + r
    inside = ((c < M) & (t < L))[:, None] & (d < D)[None, :]
    x += b.to(tl.int64) * L * D
    values = tl.load(x + t[:, None] * D + d[None, :], inside, 0.0).to(tl.float32)  # (BK, BN)
    exponent = _exponent(tl.max(tl.abs(values)))
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
def align_units(
    mixed,  # (B, M, 2, C, D) float16
    exponents,  # (B, channel blocks, C) int32
    units,  # (B, channel blocks) float32
    D,
    M,
    C: tl.constexpr,
    BQ: tl.constexpr,
    BN: tl.constexpr,
):
    """The largest unit of one b and block for all its r; a tile that has it is not touched."""
    blocks = tl.cdiv(D, BN)
    block, r, b = _tile(blocks, C)
    place = b * blocks + block
    largest = tl.max(tl.load(exponents + place * C + tl.arange(0, C)), axis=0)
    if r == 0:
        tl.store(units + place, _power(largest))
    exponent = tl.load(exponents + place * C + r)
    if exponent != largest:
        d = block * BN + tl.arange(0, BN)
        mixed += (b.to(tl.int64) * 2 * M * C + r) * D
        for first in tl.range(0, 2 * M, BQ):
            q = first + tl.arange(0, BQ)
            valid = (q < 2 * M)[:, None] & (d < D)[None, :]
            cells = mixed + q[:, None] * (C * D) + d[None, :]
            values = tl.load(cells, valid, 0.0).to(tl.float32)
            tl.store(cells, (values * _power(127 + exponent - largest)).to(tl.float16), valid)


@triton.jit
def unmix_blocks(
    mixed,  # (B, M, 2, C, D) float16
    table,  # as above
    units,  # (B, channel blocks) float32
    scales,  # (D,) float32
    y,  # (B, L, D)
    L,
    D,
    M,
    C,
    BQ: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
):
    """y[b, r::C] = F^T mixed[b, :, :, r] for one b, r and block, in the units of y."""
    blocks = tl.cdiv(D, BN)
    block, r, b = _tile(blocks, C)
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
    total *= tl.load(units + b * blocks + block) * tl.load(scales + d, d < D, 0.0)[None, :]
    t = c * C + r
    inside = ((c < M) & (t < L))[:, None] & (d < D)[None, :]
    y += b.to(tl.int64) * L * D
    tl.store(y + t[:, None] * D + d[None, :], total.to(y.dtype.element_ty), inside)


@triton.jit
def _rows_of(mixed, b, f, d, D, M, C: tl.constexpr):
    """Where mixed[b, f] of some channels lies, (2 C, BD)."""
    row = tl.arange(0, 2 * C)
    return mixed + (tl.cast(b, tl.int64) * M + f) * 2 * C * D + row[:, None] * D + d[None, :]


@triton.jit
def _transform(w, x, C: tl.constexpr):
    """W_f x as real and imaginary part, (C, BD) each.

    W's rows are eight real parts, then the same eight frequencies' imaginary parts, and so on: the
    tensor core leaves rows i and i + 8 of sixteen in one thread, and the two parts need no move.
    """
    z = tl.dot(w, x)  # (2 C, BD)
    z = tl.permute(tl.reshape(z, (C // 8, 2, 8, x.shape[1])), (0, 2, 3, 1))
    re, im = tl.split(z)
    return tl.reshape(re, (C, x.shape[1])), tl.reshape(im, (C, x.shape[1]))


@triton.jit
def _transform_back(w, re, im, C: tl.constexpr):
    """W_f^T (re, im), (2 C, BD) float16."""
    z = tl.join(re, im)  # (C, BD, 2)
    z = tl.permute(tl.reshape(z, (C // 8, 8, re.shape[1], 2)), (0, 3, 1, 2))
    return tl.dot(tl.trans(w), tl.reshape(z, (2 * C, re.shape[1])).to(tl.float16)).to(tl.float16)


@triton.jit
def multiply_frequencies(
    mixed,  # (B, M, 2, C, D) float16
    out,  # the same, or ``mixed`` itself
    matrices,  # (M, 2 C, 2 C) float16: W_f
    spectrum,  # (2, M, C, D) float32: K
    B,
    D,
    M,
    C: tl.constexpr,
    BD: tl.constexpr,  # channels per program
):
    """out[b, f] = W_f^T K_f W_f mixed[b, f] for one f and every program_id(1)-th b."""
    parts = tl.cdiv(D, BD)
    f, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    d = part * BD + tl.arange(0, BD)
    g, row = tl.arange(0, C), tl.arange(0, 2 * C)
    valid = (d < D)[None, :]
    w = tl.load(matrices + f * (4 * C * C) + row[:, None] * (2 * C) + row[None, :])  # (2 C, 2 C)
    spectrum += f * (C * D) + g[:, None] * D + d[None, :]
    k_re = tl.load(spectrum, valid, 0.0)  # (C, BD)
    k_im = tl.load(spectrum + M * C * D, valid, 0.0)
    for b in tl.range(tl.program_id(1), B, tl.num_programs(1)):
        x = tl.load(_rows_of(mixed, b, f, d, D, M, C), valid, 0.0)  # (2 C, BD)
        z_re, z_im = _transform(w, x, C)  # (C, BD)
        re, im = z_re * k_re - z_im * k_im, z_re * k_im + z_im * k_re
        tl.store(_rows_of(out, b, f, d, D, M, C), _transform_back(w, re, im, C), valid)


@triton.jit
def multiply_frequencies_backward(
    mixed_x,  # (B, M, 2, C, D) float16
    mixed_dy,  # the same of the upstream gradient, overwritten
    matrices,
    spectrum,
    units_x,  # (B, channel blocks of BN) float32
    units_dy,
    partial,  # (programs on axis 1, 2, M, C, D) float32
    B,
    D,
    M,
    C: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,  # channels per program, a part of BN
):
    """mixed_dy[b, f] = W_f^T conj(K_f) W_f mixed_dy[b, f], and dK = sum_b conj(W F x) W F dy."""
    parts = tl.cdiv(D, BD)
    f, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    block, blocks = part * BD // BN, tl.cdiv(D, BN)
    d = part * BD + tl.arange(0, BD)
    g, row = tl.arange(0, C), tl.arange(0, 2 * C)
    valid = (d < D)[None, :]
    w = tl.load(matrices + f * (4 * C * C) + row[:, None] * (2 * C) + row[None, :])  # (2 C, 2 C)
    place = f * (C * D) + g[:, None] * D + d[None, :]
    k_re = tl.load(spectrum + place, valid, 0.0)  # (C, BD)
    k_im = tl.load(spectrum + M * C * D + place, valid, 0.0)
    dk_re, dk_im = tl.zeros((C, BD), tl.float32), tl.zeros((C, BD), tl.float32)
    for b in tl.range(tl.program_id(1), B, tl.num_programs(1)):
        x = tl.load(_rows_of(mixed_x, b, f, d, D, M, C), valid, 0.0)  # (2 C, BD)
        dy = tl.load(_rows_of(mixed_dy, b, f, d, D, M, C), valid, 0.0)
        unit = tl.load(units_x + b * blocks + block) * tl.load(units_dy + b * blocks + block)
        x_re, x_im = _transform(w, x, C)  # (C, BD)
        dy_re, dy_im = _transform(w, dy, C)
        dk_re += (dy_re * x_re + dy_im * x_im) * unit
        dk_im += (dy_im * x_re - dy_re * x_im) * unit
        re, im = dy_re * k_re + dy_im * k_im, dy_im * k_re - dy_re * k_im
        tl.store(_rows_of(mixed_dy, b, f, d, D, M, C), _transform_back(w, re, im, C), valid)
    partial += tl.program_id(1).to(tl.int64) * 2 * M * C * D + place
    tl.store(partial, dk_re, valid)
    tl.store(partial + M * C * D, dk_im, valid)
