"""Triton kernels of the short convolution: each activation is read once and written once.

A program owns BD channels and S streams of STEPS tokens each. It walks down its streams row by
row and keeps the last rows in registers, so that a row is loaded once however many taps read it.
Everything is computed in float32.
"""

import triton
import triton.language as tl

from chela.kernels.tokens.tiles import sigmoid


@triton.jit
def _row(pointer, first, t, d, L, D):
    """Rows t (S,) of one sequence as float32, zeros outside of it."""
    inside = ((t >= 0) & (t < L))[:, None] & (d < D)[None, :]
    offsets = (t - first)[:, None] * D + d[None, :]
    return tl.load(pointer + offsets, mask=inside, other=0.0).to(tl.float32)  # (S, BD)


@triton.jit
def _taps(weight, d, D, WIDTH: tl.constexpr):
    """The taps of BD channels, a tuple of WIDTH rows (1, BD)."""
    taps = ()
    for j in tl.static_range(WIDTH):
        taps = taps + (tl.load(weight + d * WIDTH + j, mask=d < D, other=0.0).to(tl.float32)[None],)
    return taps


@triton.jit
def _place(L, D, STEPS, S: tl.constexpr, BD: tl.constexpr):
    """This program's first element, first token, streams' first tokens and channels."""
    channel_blocks = tl.cdiv(D, BD)
    time_blocks = tl.cdiv(L, S * STEPS)
    pid = tl.program_id(0)
    part = pid // channel_blocks  # channels vary fastest: neighbours read neighbouring memory
    batch, first = part // time_blocks, (part % time_blocks) * (S * STEPS)
    start = (batch.to(tl.int64) * L + first) * D  # beyond 2^31 elements
    return (
        start,
        first,
        first + tl.arange(0, S) * STEPS,
        (pid % channel_blocks) * BD + tl.arange(0, BD),
    )


@triton.jit
def short_conv_forward(
    x,
    weight,  # (D, WIDTH)
    bias,  # (D,)
    y,
    L,
    D,
    STEPS,
    WIDTH: tl.constexpr,
    OFFSET: tl.constexpr,
    BIAS: tl.constexpr,
    SILU: tl.constexpr,
    S: tl.constexpr,
    BD: tl.constexpr,
    UNROLL: tl.constexpr,  # rows in flight; divides STEPS
):
    """y = silu(bias + sum_j weight_j x[t - j + OFFSET])."""
    start, first, t, d = _place(L, D, STEPS, S, BD)
    x += start
    y += start
    taps = _taps(weight, d, D, WIDTH)
    b = tl.load(bias + d, mask=d < D, other=0.0).to(tl.float32)[None, :] if BIAS else 0.0
    rows = ()  # the WIDTH - 1 rows before the next, oldest first
    for j in tl.static_range(WIDTH - 1):
        rows = rows + (_row(x, first, t + OFFSET - (WIDTH - 1) + j, d, L, D),)
    for i in tl.range(0, STEPS, UNROLL):
        for j in tl.static_range(UNROLL):
            rows = rows + (_row(x, first, t + OFFSET + i + j, d, L, D),)
        for j in tl.static_range(UNROLL):
            z = b + taps[0] * rows[j + WIDTH - 1]
            for k in tl.static_range(1, WIDTH):
                z += taps[k] * rows[j + WIDTH - 1 - k]
            if SILU:
                z = z * sigmoid(z)
            now = t + (i + j)
            inside = (now < L)[:, None] & (d < D)[None, :]
            offsets = (now - first)[:, None] * D + d[None, :]
            tl.store(y + offsets, z.to(y.dtype.element_ty), mask=inside)
        rows = rows[UNROLL:]


@triton.jit
def _gradient_before_silu(dy, x_rows, taps, b, SILU: tl.constexpr, WIDTH: tl.constexpr):
    """dz for z = b + sum_j taps_j x_rows[WIDTH - 1 - j] and y = silu(z)."""
    if not SILU:
        return dy
    z = b + taps[0] * x_rows[WIDTH - 1]
    for k in tl.static_range(1, WIDTH):
        z += taps[k] * x_rows[WIDTH - 1 - k]
    gate = sigmoid(z)
    return dy * (gate + gate * z * (1.0 - gate))


@triton.jit
def short_conv_backward(
    x,
    weight,  # (D, WIDTH)
    bias,  # (D,)
    dy,
    dx,
    partial,  # (parts, WIDTH + 1, D) float32: this program's share of dweight and dbias
    L,
    D,
    STEPS,
    WIDTH: tl.constexpr,
    OFFSET: tl.constexpr,
    BIAS: tl.constexpr,
    SILU: tl.constexpr,
    S: tl.constexpr,
    BD: tl.constexpr,
    UNROLL: tl.constexpr,  # rows in flight; divides STEPS
):
    """dx[t] = sum_j weight_j dz[t + j - OFFSET], and the sums over this program's tokens.

    dz is recomputed for the WIDTH - 1 rows beside a stream, whose own streams count them in
    dweight and dbias.
    """
    start, first, t, d = _place(L, D, STEPS, S, BD)
    x += start
    dy += start
    dx += start
    taps = _taps(weight, d, D, WIDTH)
    b = tl.load(bias + d, mask=d < D, other=0.0).to(tl.float32)[None, :] if BIAS else 0.0
    sums = ()  # of dz x[t - j + OFFSET], j = 0 .. WIDTH - 1, and of dz
    for _ in tl.static_range(WIDTH + 1):
        sums = sums + (tl.zeros((S, BD), tl.float32),)

    x_rows = ()  # the last rows, oldest first
    for j in tl.static_range(WIDTH - 1):
        x_rows = x_rows + (_row(x, first, t - (WIDTH - 1) + j, d, L, D),)
    dz_rows = ()
    for j in tl.static_range(WIDTH - 1):  # the rows of dz before the first that completes a dx
        x_rows = x_rows + (_row(x, first, t + j, d, L, D),)
        upstream = _row(dy, first, t - OFFSET + j, d, L, D)
        dz = _gradient_before_silu(upstream, x_rows, taps, b, SILU, WIDTH)
        dz_rows = dz_rows + (dz,)
        if j >= OFFSET:  # of this stream's own tokens
            added = ()
            for k in tl.static_range(WIDTH):
                added = added + (sums[k] + dz * x_rows[WIDTH - 1 - k],)
            sums = added + (sums[WIDTH] + dz,)
        x_rows = x_rows[1:]

    for i in tl.range(0, STEPS, UNROLL):
        new_dy = ()
        for j in tl.static_range(UNROLL):
            x_rows = x_rows + (_row(x, first, t + (WIDTH - 1) + i + j, d, L, D),)
            new_dy = new_dy + (_row(dy, first, t + (WIDTH - 1 - OFFSET) + i + j, d, L, D),)
        for j in tl.static_range(UNROLL):
            dz = _gradient_before_silu(new_dy[j], x_rows, taps, b, SILU, WIDTH)
            own = dz * (i + j < STEPS - (WIDTH - 1 - OFFSET)).to(tl.float32)
            added = ()
            for k in tl.static_range(WIDTH):
                added = added + (sums[k] + own * x_rows[WIDTH - 1 - k],)
            sums = added + (sums[WIDTH] + own,)
            dz_rows = dz_rows + (dz,)
            total = taps[0] * dz_rows[0]
            for k in tl.static_range(1, WIDTH):
                total += taps[k] * dz_rows[k]
            now = t + (i + j)
            inside = (now < L)[:, None] & (d < D)[None, :]
            offsets = (now - first)[:, None] * D + d[None, :]
            tl.store(dx + offsets, total.to(dx.dtype.element_ty), mask=inside)
            x_rows = x_rows[1:]
            dz_rows = dz_rows[1:]

    partial += (tl.program_id(0) // tl.cdiv(D, BD)).to(tl.int64) * ((WIDTH + 1) * D)
    for k in tl.static_range(WIDTH + 1):
        tl.store(partial + k * D + d, tl.sum(sums[k], axis=0), mask=d < D)


@triton.jit
def sum_parts(
    partial,  # (parts, WIDTH + 1, D) float32
    dweight,  # (D, WIDTH)
    dbias,  # (D,)
    parts,
    D,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BD: tl.constexpr,
):
    """The parts added up in a fixed order; program_id(1) is a tap, the last one the bias."""
    tap = tl.program_id(1)
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    columns = partial + tap * D + d[None, :]
    total = tl.zeros((ROWS, BD), tl.float32)
    for first in tl.range(0, parts, ROWS):
        part = first + tl.arange(0, ROWS)
        inside = (part < parts)[:, None] & (d < D)[None, :]
        total += tl.load(columns + part.to(tl.int64)[:, None] * ((WIDTH + 1) * D), inside, 0.0)
    value = tl.sum(total, axis=0)
    if tap < WIDTH:
        tl.store(dweight + d * WIDTH + tap, value.to(dweight.dtype.element_ty), mask=d < D)
    else:
        tl.store(dbias + d, value.to(dbias.dtype.element_ty), mask=d < D)
