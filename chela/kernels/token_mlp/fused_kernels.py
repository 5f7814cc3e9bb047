"""Triton kernels of the token-wise MLP: hidden channels are made and used up on the chip.

A program owns ROWS tokens and walks over their hidden channels BH at a time. Backward it makes them
once more, and writes what the weights' gradients are products of.

FACTOR says what the hidden channels are multiplied with: "none", "given" (a tensor) or "up" (a
second projection of the tokens). RESIDUAL says what the output is added to: "none", "x" or "given".
"""

import triton
import triton.language as tl

from chela.kernels.tokens.tiles import (
    affine,
    drop,
    load_matrix,
    load_tile,
    load_vector,
    normalise_backward,
    operand,
    sigmoid,
    silu_slope,
    standardised,
    statistics,
    store_exact_sum,
    store_tile,
    tile_rows,
    token_keys,
)


@triton.jit
def chunk(
    w_hidden,
    w_up,
    w_out,
    h,
    columns,
    D: tl.constexpr,
    H: tl.constexpr,
    BD: tl.constexpr,
    BH: tl.constexpr,
    FACTOR: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The weights of hidden channels h: W_hidden (BH, BD), W_up (the same), W_out (BD, BH)."""
    w = load_matrix(w_hidden, h, columns, H, D, BH, BD, WIDE)
    second = w
    if FACTOR == "up":
        second = load_matrix(w_up, h, columns, H, D, BH, BD, WIDE)
    return w, second, load_matrix(w_out, columns, h, D, H, BD, BH, WIDE)


@triton.jit
def activated(
    n,
    w,
    second,
    b_hidden,
    b_up,
    factor,
    rows,
    h,
    real,
    H: tl.constexpr,
    BH: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """silu(W_hidden n + b_hidden) * factor for hidden channels h: (ROWS, BH)."""
    pre = tl.dot(n, tl.trans(w), input_precision=PRECISION) + load_vector(b_hidden, h, H)[None]
    a = pre * sigmoid(pre)
    if FACTOR == "up":
        up = tl.dot(n, tl.trans(second), input_precision=PRECISION)
        a *= up + load_vector(b_up, h, H)[None]
    if FACTOR == "given":
        a *= load_tile(factor, rows, h, real, H, BH)
    return a


@triton.jit
def token_mlp_forward(
    x,  # (tokens, D)
    factor,  # (tokens, H), or None
    residual,  # (tokens, D), or None
    norm_weight,  # (D,), or None
    norm_bias,  # (D,), or None
    w_hidden,  # (H, D)
    b_hidden,  # (H,)
    w_up,  # (H, D), or None
    b_up,  # (H,), or None
    w_out,  # (D, H)
    b_out,  # (D,)
    lengths,  # (B,), or None
    seed,  # (1,), or None
    y,  # (tokens, D)
    tokens,
    L,
    eps,
    p_hidden,
    p_out,
    D: tl.constexpr,
    H: tl.constexpr,
    BD: tl.constexpr,
    BH: tl.constexpr,
    ROWS: tl.constexpr,
    NORM: tl.constexpr,
    FACTOR: tl.constexpr,
    RESIDUAL: tl.constexpr,
    DROP_HIDDEN: tl.constexpr,
    DROP_OUT: tl.constexpr,
    TIED: tl.constexpr,
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y = residual + drop(W_out drop(silu(W_hidden n + b_hidden) * factor) + b_out), n = n(x)."""
    columns = tl.arange(0, BD)
    first = tl.program_id(0) * ROWS
    rows, inside, real = tile_rows(first, tokens, lengths, L, ROWS, RAGGED)
    own = load_tile(x, rows, columns, real, D, BD)
    mean, scale = statistics(own, columns, eps, D, NORM)
    own = standardised(own, mean, scale, columns, D, NORM)
    n = affine(own, columns, norm_weight, norm_bias, D, NORM)
    n = operand(n, w_hidden, WIDE)
    hidden_key, out_key = rows, rows
    if DROP_HIDDEN or DROP_OUT:
        hidden_key, out_key = token_keys(seed, rows, L, TIED)
    out = tl.zeros((ROWS, BD), tl.float32)
    end = H
    if RAGGED:
        end = H * tl.max(real.to(tl.int32), axis=0)  # a tile of padding has nothing to do
    for start in tl.range(0, end, BH):
        h = start + tl.arange(0, BH)
        w, second, w_back = chunk(w_hidden, w_up, w_out, h, columns, D, H, BD, BH, FACTOR, WIDE)
        a = activated(
            n, w, second, b_hidden, b_up, factor, rows, h, real, H, BH, FACTOR, PRECISION
        )  # fmt: skip
        if DROP_HIDDEN:
            a = drop(a, hidden_key, h, p_hidden)
        out = tl.dot(operand(a, w_out, WIDE), tl.trans(w_back), out, input_precision=PRECISION)
    out += load_vector(b_out, columns, D)[None]
    if DROP_OUT:
        out = drop(out, out_key, columns, p_out)
    if RESIDUAL == "x":
        out += load_tile(x, rows, columns, real, D, BD)
    if RESIDUAL == "given":
        out += load_tile(residual, rows, columns, real, D, BD)
    if RAGGED:
        out = tl.where(real[:, None], out, 0.0)
    store_tile(y, out, rows, columns, inside, D, BD, WIDE)


@triton.jit
def token_mlp_backward(
    dy,  # (tokens, D)
    x,  # (tokens, D)
    factor,  # (tokens, H), or None
    norm_weight,  # (D,), or None
    norm_bias,  # (D,), or None
    w_hidden,  # (H, D)
    b_hidden,  # (H,)
    w_up,  # (H, D), or None
    b_up,  # (H,), or None
    w_out,  # (D, H)
    lengths,  # (B,), or None
    seed,  # (1,), or None
    dx,  # (tokens, D)
    dfactor,  # (tokens, H): of a given factor, or of the second projection; or None
    normal,  # (tokens, D): n(x) in the dtype of the weights; or None
    upstream,  # (tokens, D): what W_out's output gets, in that dtype; or None
    hidden,  # (tokens, H): what W_out's input was
    dhidden,  # (tokens, H): of W_hidden's output
    sums,  # (tiles, 2 D) float32: of norm weight, norm bias; or None
    tokens,
    L,
    eps,
    p_hidden,
    p_out,
    D: tl.constexpr,
    H: tl.constexpr,
    BD: tl.constexpr,
    BH: tl.constexpr,
    ROWS: tl.constexpr,
    NORM: tl.constexpr,
    FACTOR: tl.constexpr,
    RESIDUAL: tl.constexpr,
    DROP_HIDDEN: tl.constexpr,
    DROP_OUT: tl.constexpr,
    TIED: tl.constexpr,
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradients of the tokens, and the operands of those of the weights."""
    columns = tl.arange(0, BD)
    first = tl.program_id(0) * ROWS
    rows, inside, real = tile_rows(first, tokens, lengths, L, ROWS, RAGGED)
    own = load_tile(x, rows, columns, real, D, BD)
    mean, scale = statistics(own, columns, eps, D, NORM)
    own = standardised(own, mean, scale, columns, D, NORM)
    n = affine(own, columns, norm_weight, norm_bias, D, NORM)
    if RAGGED:
        n = tl.where(real[:, None], n, 0.0)
    if normal is not None:
        store_tile(normal, n, rows, columns, inside, D, BD, WIDE)
    n = operand(n, w_hidden, WIDE)
    g = load_tile(dy, rows, columns, real, D, BD)
    hidden_key, out_key = rows, rows
    if DROP_HIDDEN or DROP_OUT:
        hidden_key, out_key = token_keys(seed, rows, L, TIED)
    if DROP_OUT:
        g = drop(g, out_key, columns, p_out)
    if upstream is not None:
        store_tile(upstream, g, rows, columns, inside, D, BD, WIDE)
    g = operand(g, w_out, WIDE)
    dn = tl.zeros((ROWS, BD), tl.float32)
    for start in tl.range(0, H, BH):
        h = start + tl.arange(0, BH)
        w, second, w_back = chunk(w_hidden, w_up, w_out, h, columns, D, H, BD, BH, FACTOR, WIDE)
        dn = chunk_backward(
            dn, n, g, w, second, w_back, w_hidden, b_hidden, b_up, factor, dfactor, hidden,
            dhidden, rows, h, inside, real, hidden_key, p_hidden, H, BH, FACTOR,
            DROP_HIDDEN, RAGGED, WIDE, PRECISION,
        )  # fmt: skip
    if NORM != "none":
        own = load_tile(x, rows, columns, real, D, BD)  # again: it need not stay in registers
        own = standardised(own, mean, scale, columns, D, NORM)
        share = sums + (first // ROWS) * (2 * D)
        store_exact_sum(share, dn * own, columns, D)
        store_exact_sum(share + D, dn, columns, D)
        dn = normalise_backward(dn, own, scale, columns, norm_weight, D, NORM)
    if RESIDUAL == "x":
        dn += load_tile(dy, rows, columns, real, D, BD)
    store_tile(dx, dn, rows, columns, inside, D, BD, WIDE)


@triton.jit
def chunk_backward(
    dn,
    n,
    g,
    w,
    second,
    w_back,
    w_hidden,
    b_hidden,
    b_up,
    factor,
    dfactor,
    hidden,
    dhidden,
    rows,
    h,
    inside,
    real,
    hidden_key,
    p_hidden,
    H: tl.constexpr,
    BH: tl.constexpr,
    FACTOR: tl.constexpr,
    DROP_HIDDEN: tl.constexpr,
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Hidden channels h: write them and their gradients, and add their share to dn."""
    pre = tl.dot(n, tl.trans(w), input_precision=PRECISION) + load_vector(b_hidden, h, H)[None]
    da = tl.dot(g, w_back, input_precision=PRECISION)
    if DROP_HIDDEN:
        da = drop(da, hidden_key, h, p_hidden)
    s = sigmoid(pre)
    a = pre * s
    if FACTOR != "none":
        if FACTOR == "up":
            f = tl.dot(n, tl.trans(second), input_precision=PRECISION)
            f += load_vector(b_up, h, H)[None]
        else:
            f = load_tile(factor, rows, h, real, H, BH)
        df = da * a
        da *= f
        a *= f
        store_tile(dfactor, df, rows, h, inside, H, BH, WIDE)
        if FACTOR == "up":
            dn = tl.dot(operand(df, w_hidden, WIDE), second, dn, input_precision=PRECISION)
    if DROP_HIDDEN:
        a = drop(a, hidden_key, h, p_hidden)
    if RAGGED:
        a = tl.where(real[:, None], a, 0.0)
    store_tile(hidden, a, rows, h, inside, H, BH, WIDE)
    dpre = da * silu_slope(pre, s)
    store_tile(dhidden, dpre, rows, h, inside, H, BH, WIDE)
    return tl.dot(operand(dpre, w_hidden, WIDE), w, dn, input_precision=PRECISION)
