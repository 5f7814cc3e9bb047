"""The outer factor of the taps of the longest convolutions, which lie channel by channel.

``deep_kernels.py`` has the rest. Lag m of the past is at time m of one complex sequence's real
part, lag m + 1 of the future at time N - 1 - m of its imaginary part. A program takes eight
neighbouring times of sixteen channels for every p, so that it reads and writes whole sectors of 32
bytes on both sides; the product's columns change their order on the chip.
"""

import triton
import triton.language as tl

from chela.kernels.long_conv.deep_kernels import _exponent, _two_to


@triton.jit
def _outer_rows(table, q, p, BK: tl.constexpr):
    """Some rows of F, and of i F: real parts in even rows, imaginary ones in odd rows."""
    sign = tl.where(q % 2 == 0, -1.0, 1.0).to(tl.float16)[:, None]
    rows = tl.load(table + q[:, None] * BK + p[None, :])
    return rows, tl.load(table + (q ^ 1)[:, None] * BK + p[None, :]) * sign


@triton.jit
def _load_taps(kernel, direction, first_d, d, lag, L, K, D, inside):
    """Taps of channels first_d + d of a direction at ``lag``, zero at those that do not count."""
    index = lag - direction
    seen = inside & (index >= 0) & (index < K) & (lag < L) & (d < D - first_d)
    row = kernel + tl.cast(direction * D + first_d, tl.int64) * K
    return tl.load(row + (d * K + index), seen, 0.0).to(tl.float32)


@triton.jit
def _load_past(kernel, skip, first_d, d, m, L, K, D, inside, SKIP: tl.constexpr):
    past = _load_taps(kernel, 0, first_d, d, m, L, K, D, inside)
    if SKIP:
        own = tl.load(skip + first_d + d, d < D - first_d, 0.0).to(tl.float32)
        past += tl.where(m == 0, own, 0.0)
    return past


@triton.jit
def mix_taps(
    kernel,  # (DIRECTIONS, D, K)
    skip,  # (D,)
    table,  # (2 P or more, BK) float16: F, zeros beyond P
    mixed,  # (P, 2, Q, D) float16
    exponents,  # (channel blocks, Q) int32
    L,
    K,
    D,
    P,
    Q,
    DIRECTIONS: tl.constexpr,
    SKIP: tl.constexpr,
    BQ: tl.constexpr,  # rows of F
    BK: tl.constexpr,  # >= P
    BN: tl.constexpr,  # channels that share exponents
    BD: tl.constexpr,  # channels at once
    BS: tl.constexpr,  # times at once
    CHUNKS: tl.constexpr,  # BQ CHUNKS >= 2 P
):
    """mixed[:, :, s] = F (past + i future)[s::Q] for some s, and the skip in past_0."""
    block, chunk = tl.program_id(0) // CHUNKS, tl.program_id(0) % CHUNKS
    q, p = chunk * BQ + tl.arange(0, BQ), tl.arange(0, BK)
    real, turned = _outer_rows(table, q, p, BK)  # (BQ, BK)
    column = tl.arange(0, BD * BS)
    d = (column // BS)[None, :]
    inside = (p < P)[:, None]
    rows = mixed + q.to(tl.int64)[:, None] * Q * D
    for first in tl.range(tl.program_id(1) * BS, Q, tl.num_programs(1) * BS):
        m = p[:, None] * Q + first + (column % BS)[None, :]  # (BK, BD BS)
        largest = 0.0
        for part in tl.range(0, BN // BD):
            first_d = block * BN + part * BD
            past = _load_past(kernel, skip, first_d, d, m, L, K, D, inside, SKIP)
            largest = tl.maximum(largest, tl.max(tl.abs(past)))
            if DIRECTIONS == 2:
                future = _load_taps(kernel, 1, first_d, d, P * Q - m, L, K, D, inside)
                largest = tl.maximum(largest, tl.max(tl.abs(future)))
        exponent = _exponent(largest)
        unit = _two_to(-exponent)
        for part in tl.range(0, BN // BD):
            first_d = block * BN + part * BD
            past = _load_past(kernel, skip, first_d, d, m, L, K, D, inside, SKIP)
            product = tl.dot(real, (past * unit).to(tl.float16))  # (BQ, BD BS)
            if DIRECTIONS == 2:
                future = _load_taps(kernel, 1, first_d, d, P * Q - m, L, K, D, inside)
                product = tl.dot(turned, (future * unit).to(tl.float16), product)
            product = tl.permute(tl.reshape(product.to(tl.float16), (BQ, BD, BS)), (0, 2, 1))
            valid = (q < 2 * P)[:, None] & (column % BD < D - first_d)[None, :]
            cells = rows + ((first + column // BD) * D + first_d + column % BD)[None, :]
            tl.store(cells, tl.reshape(product, (BQ, BD * BS)), valid)
        if chunk == 0:
            tl.store(exponents + block * Q + first + tl.arange(0, BS), exponent)


@triton.jit
def _store_taps(dkernel, values, direction, first_d, d, lag, L, K, D, inside):
    index = lag - direction
    inside = inside & (index >= 0) & (index < K) & (d < D - first_d)
    row = dkernel + tl.cast(direction * D + first_d, tl.int64) * K
    values = tl.where(lag < L, values, 0.0)
    tl.store(row + (d * K + index), values.to(dkernel.dtype.element_ty), inside)


@triton.jit
def unmix_taps(
    mixed,  # (P, 2, Q, D) float16
    table,  # as above
    exponents,  # (channel blocks, P) int32
    dkernel,  # (DIRECTIONS, D, K), zero at lags of N and more
    dskip,  # (D,) float32
    scale,
    L,
    K,
    D,
    P,
    Q,
    DIRECTIONS: tl.constexpr,
    BP: tl.constexpr,  # rows of F^H
    BK: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
    BS: tl.constexpr,
    CHUNKS: tl.constexpr,  # BP CHUNKS >= P
):
    """The adjoint of ``mix_taps`` times ``scale``."""
    first_d, chunk = tl.program_id(0) // CHUNKS * BD, tl.program_id(0) % CHUNKS
    q, p = tl.arange(0, 2 * BK), chunk * BP + tl.arange(0, BP)
    real, turned = _outer_rows(table, q, p, BK)  # (2 BK, BP)
    column = tl.arange(0, BD * BS)
    exponent = tl.load(exponents + first_d // BN * P + q // 2, q < 2 * P, -1000)
    largest = tl.max(exponent, axis=0)
    align, unit = _two_to(exponent - largest).to(tl.float16)[:, None], scale * _two_to(largest)
    rows = mixed + q.to(tl.int64)[:, None] * Q * D
    valid = (q < 2 * P)[:, None] & (column % BD < D - first_d)[None, :]
    d = (column // BS)[None, :]
    inside = (p < P)[:, None]
    for first in tl.range(tl.program_id(1) * BS, Q, tl.num_programs(1) * BS):
        cells = rows + ((first + column // BD) * D + first_d + column % BD)[None, :]
        values = tl.load(cells, valid, 0.0) * align
        m = p[:, None] * Q + first + (column % BS)[None, :]  # (BP, BD BS)
        past = tl.dot(tl.trans(real), values) * unit  # (BP, BS BD)
        past = tl.permute(tl.reshape(past, (BP, BS, BD)), (0, 2, 1))
        past = tl.reshape(past, (BP, BD * BS))
        _store_taps(dkernel, past, 0, first_d, d, m, L, K, D, inside)
        tl.store(dskip + first_d + d + m, past, inside & (m == 0) & (d < D - first_d))
        if DIRECTIONS == 2:
            future = tl.dot(tl.trans(turned), values) * unit
            future = tl.permute(tl.reshape(future, (BP, BS, BD)), (0, 2, 1))
            future = tl.reshape(future, (BP, BD * BS))
            _store_taps(dkernel, future, 1, first_d, d, P * Q - m, L, K, D, inside)
