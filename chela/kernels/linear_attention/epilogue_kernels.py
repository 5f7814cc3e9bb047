"""Triton kernels of the epilogue: out = o / rms(o) * weight * silu(gate), token by token.

The forward epilogue of narrow heads is fused into the attention kernels; that of heads which are
cut into parts, and every gradient, is a pass of its own.
"""

import triton
import triton.language as tl

from chela.kernels.tokens.tiles import rounded, sigmoid


@triton.jit
def _head_rows(
    first, lengths, H, L, num_rows, D: tl.constexpr, ROWS: tl.constexpr, RAGGED: tl.constexpr
):
    """Where heads first .. first + ROWS begin, which exist, and which are no padding."""
    rows = first + tl.arange(0, ROWS)
    inside = rows < num_rows
    real = inside
    if RAGGED:
        length = tl.load(lengths + rows // (L * H), mask=inside, other=0)
        real = inside & (rows // H % L < length)
    return (rows.to(tl.int64) * D)[:, None], inside[:, None], real[:, None]


@triton.jit
def _columns(block, D: tl.constexpr, C: tl.constexpr):
    """The columns of a block, and which exist."""
    columns = block * C + tl.arange(0, C)
    return columns, columns < D


@triton.jit
def _for_rows(x, columns, mask):
    """Elements ``columns`` of a parameter for every row of ``mask``, as float32.

    Each row loads them: a load for all rows would be laid out otherwise, and moved across threads.
    """
    return tl.load(
        x + columns[None, :] + tl.zeros_like(mask).to(tl.int32), mask=mask, other=0.0
    ).to(tl.float32)


@triton.jit
def epilogue_forward(
    o,
    gate,
    weight,  # (D,)
    lengths,  # (B,)
    out,
    H,
    L,
    num_rows,  # B * L * H; all tensors are contiguous
    EPS: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    RAGGED: tl.constexpr,
    NORM: tl.constexpr,
    GATE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """out, zero at padded positions; the D channels of a head are N blocks of C columns."""
    for first in range(tl.program_id(0) * ROWS, num_rows, tl.num_programs(0) * ROWS):
        start, inside, real = _head_rows(first, lengths, H, L, num_rows, D, ROWS, RAGGED)
        ys, gates = (), ()
        squares = tl.zeros((ROWS, C), tl.float32)
        for block in tl.static_range(N):
            columns, exists = _columns(block, D, C)
            place, mask = start + columns[None, :], real & exists[None, :]
            y = tl.load(o + place, mask=mask, other=0.0)
            ys = ys + (y,)
            squares += y.to(tl.float32) * y.to(tl.float32)
            if GATE:
                gates = gates + (tl.load(gate + place, mask=mask, other=0.0),)
        if NORM:
            scale = tl.rsqrt(tl.sum(squares, axis=1) / D + EPS)[:, None]
        for block in tl.static_range(N):
            columns, exists = _columns(block, D, C)
            mask = inside & exists[None, :]
            y = ys[block].to(tl.float32)
            if NORM:
                y = y * scale * _for_rows(weight, columns, mask)
            if GATE:
                g = gates[block].to(tl.float32)
                y = y * g * sigmoid(g)
            y = rounded(y, out.dtype.element_ty, WIDE)
            tl.store(out + start + columns[None, :], y, mask=mask)


@triton.jit
def epilogue_backward(
    dout,
    o,
    gate,
    weight,  # (D,)
    lengths,  # (B,)
    do,
    dgate,
    dweights,  # (programs, D): each program's share of the weight's gradient
    H,
    L,
    num_rows,  # B * L * H; all tensors are contiguous
    EPS: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    RAGGED: tl.constexpr,
    NORM: tl.constexpr,
    GATE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """do, dgate and dweights from the gradient of out.

    With y = o * scale, n = y * weight and t = dout * silu(gate): dweight = sum t y,
    do = scale * (t * weight - y * mean(t * weight * y)), and the mean is known before y is.
    """
    shares = ()
    if NORM:
        for _ in tl.static_range(N):
            shares = shares + (tl.zeros((ROWS, C), tl.float32),)
    for first in range(tl.program_id(0) * ROWS, num_rows, tl.num_programs(0) * ROWS):
        start, inside, real = _head_rows(first, lengths, H, L, num_rows, D, ROWS, RAGGED)
        os, ups, gates = (), (), ()
        squares = tl.zeros((ROWS, C), tl.float32)
        products = tl.zeros((ROWS, C), tl.float32)
        for block in tl.static_range(N):
            columns, exists = _columns(block, D, C)
            place, mask = start + columns[None, :], real & exists[None, :]
            o_block = tl.load(o + place, mask=mask, other=0.0)
            up = tl.load(dout + place, mask=mask, other=0.0)
            os, ups = os + (o_block,), ups + (up,)
            t = up.to(tl.float32)
            if GATE:
                g_block = tl.load(gate + place, mask=mask, other=0.0)
                gates = gates + (g_block,)
                g = g_block.to(tl.float32)
                t = t * g * sigmoid(g)
            if NORM:
                y = o_block.to(tl.float32)
                squares += y * y
                products += t * _for_rows(weight, columns, mask) * y
        if NORM:
            scale = tl.rsqrt(tl.sum(squares, axis=1) / D + EPS)[:, None]
            along = tl.sum(products, axis=1)[:, None] * scale / D
        added = ()
        for block in tl.static_range(N):
            columns, exists = _columns(block, D, C)
            place, mask = start + columns[None, :], inside & exists[None, :]
            y = os[block].to(tl.float32)
            up = ups[block].to(tl.float32)
            t, n = up, y
            if NORM:
                gain = _for_rows(weight, columns, mask)
                y = y * scale
                n = y * gain
            if GATE:
                g = gates[block].to(tl.float32)
                s = sigmoid(g)
                dg = up * n * s * (1 + g * (1 - s))
                tl.store(dgate + place, rounded(dg, dgate.dtype.element_ty, WIDE), mask=mask)
                t = up * g * s
            if NORM:
                added = added + (shares[block] + t * y,)
                t = scale * (t * gain - y * along)
            tl.store(do + place, rounded(t, do.dtype.element_ty, WIDE), mask=mask)
        shares = added
    if NORM:
        for block in tl.static_range(N):
            columns, exists = _columns(block, D, C)
            share = tl.sum(shares[block], axis=0)
            tl.store(dweights + tl.program_id(0) * D + columns, share, mask=exists)
