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
    store_sum,
    store_tile,
    tile_rows,
    token_keys,
)


@triton.jit
def forward(
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
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y = residual + drop(W_out drop(silu(W_hidden n + b_hidden) * factor) + b_out), n = n(x)."""
    rows, inside, real = tile_rows(tl.program_id(0) * ROWS, tokens, lengths, L, ROWS, RAGGED)
    columns = tl.arange(0, BD)
    own = load_tile(x, rows, columns, real, D, BD)
    mean, scale = statistics(own, columns, eps, D, NORM)
    own = standardised(own, mean, scale, columns, D, NORM)
    n = affine(own, columns, norm_weight, norm_bias, D, NORM)
    n = operand(n, w_hidden, WIDE)
    if DROP_HIDDEN or DROP_OUT:
        hidden_key, out_key = token_keys(seed, rows)
    end = H
    if RAGGED:
        end = H * tl.max(real.to(tl.int32), axis=0)  # a tile of padding has nothing to do
    out = tl.zeros((ROWS, BD), tl.float32)
    for start in tl.range(0, end, BH):
        h = start + tl.arange(0, BH)
        w = load_matrix(w_hidden, h, columns, H, D, BH, BD, WIDE)
        pre = tl.dot(n, tl.trans(w), input_precision=PRECISION) + load_vector(b_hidden, h, H)[None]
        a = pre * sigmoid(pre)
        if FACTOR == "up":
            w = load_matrix(w_up, h, columns, H, D, BH, BD, WIDE)
            up = tl.dot(n, tl.trans(w), input_precision=PRECISION)
            a *= up + load_vector(b_up, h, H)[None]
        if FACTOR == "given":
            a *= load_tile(factor, rows, h, real, H, BH)
        if DROP_HIDDEN:
            a = drop(a, hidden_key, h, p_hidden)
        w = load_matrix(w_out, columns, h, D, H, BD, BH, WIDE)
        out = tl.dot(operand(a, w_out, WIDE), tl.trans(w), out, input_precision=PRECISION)
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
def backward(
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
    sums,  # (programs, 2 H + 3 D) float32: of b_hidden, b_up, b_out, norm weight, norm bias
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
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradients of the tokens, and the operands of those of the weights."""
    rows, inside, real = tile_rows(tl.program_id(0) * ROWS, tokens, lengths, L, ROWS, RAGGED)
    columns = tl.arange(0, BD)
    sums += tl.program_id(0).to(tl.int64) * (2 * H + 3 * D)
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
    if DROP_HIDDEN or DROP_OUT:
        hidden_key, out_key = token_keys(seed, rows)
    if DROP_OUT:
        g = drop(g, out_key, columns, p_out)
    if upstream is not None:
        store_tile(upstream, g, rows, columns, inside, D, BD, WIDE)
    store_sum(sums + 2 * H, g, columns, w_out, D, WIDE, PRECISION)
    g = operand(g, w_out, WIDE)
    dn = tl.zeros((ROWS, BD), tl.float32)
    for start in tl.range(0, H, BH):
        h = start + tl.arange(0, BH)
        w = load_matrix(w_hidden, h, columns, H, D, BH, BD, WIDE)
        pre = tl.dot(n, tl.trans(w), input_precision=PRECISION) + load_vector(b_hidden, h, H)[None]
        w_back = load_matrix(w_out, columns, h, D, H, BD, BH, WIDE)
        da = tl.dot(g, w_back, input_precision=PRECISION)
        if DROP_HIDDEN:
            da = drop(da, hidden_key, h, p_hidden)
        s = sigmoid(pre)
        a = pre * s
        if FACTOR != "none":
            if FACTOR == "up":
                w_second = load_matrix(w_up, h, columns, H, D, BH, BD, WIDE)
                f = tl.dot(n, tl.trans(w_second), input_precision=PRECISION)
                f += load_vector(b_up, h, H)[None]
            else:
                f = load_tile(factor, rows, h, real, H, BH)
            df = da * a
            da *= f
            a *= f
            store_tile(dfactor, df, rows, h, inside, H, BH, WIDE)
            if FACTOR == "up":
                store_sum(sums + H, df, h, w_hidden, H, WIDE, PRECISION)
                dn = tl.dot(operand(df, w_up, WIDE), w_second, dn, input_precision=PRECISION)
        if DROP_HIDDEN:
            a = drop(a, hidden_key, h, p_hidden)
        if RAGGED:
            a = tl.where(real[:, None], a, 0.0)
        store_tile(hidden, a, rows, h, inside, H, BH, WIDE)
        dpre = da * silu_slope(pre, s)
        store_tile(dhidden, dpre, rows, h, inside, H, BH, WIDE)
        store_sum(sums, dpre, h, w_hidden, H, WIDE, PRECISION)
        dn = tl.dot(operand(dpre, w_hidden, WIDE), w, dn, input_precision=PRECISION)
    if NORM != "none":
        own = load_tile(x, rows, columns, real, D, BD)  # again: it need not stay in registers
        own = standardised(own, mean, scale, columns, D, NORM)
        store_exact_sum(sums + 2 * H + D, dn * own, columns, D)
        store_exact_sum(sums + 2 * H + 2 * D, dn, columns, D)
        dn = normalise_backward(dn, own, scale, columns, norm_weight, D, NORM)
    if RESIDUAL == "x":
        dn += load_tile(dy, rows, columns, real, D, BD)
    store_tile(dx, dn, rows, columns, inside, D, BD, WIDE)
