"""Triton kernels of queries and keys: the shared projection stays on the chip."""

import triton
import triton.language as tl

from chela.kernels.tokens.tiles import (
    load_matrix,
    load_tile,
    load_vector,
    operand,
    sigmoid,
    silu_slope,
    store_sum,
    store_tile,
    tile_rows,
)


@triton.jit
def query_key_forward(
    z,  # (tokens, D)
    weight,  # (N, D)
    bias,  # (N,)
    scale_q,  # (N,), and so the next three
    shift_q,
    scale_k,
    shift_k,
    q,  # (tokens, N)
    k,  # (tokens, N)
    tokens,
    D: tl.constexpr,
    N: tl.constexpr,
    BD: tl.constexpr,
    BN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """q = scale_q * u + shift_q and k likewise, u = silu(W z + bias)."""
    columns = tl.arange(0, BD)
    first = tl.program_id(0) * ROWS
    rows, inside, _ = tile_rows(first, tokens, None, 1, ROWS, False)
    own = operand(load_tile(z, rows, columns, inside, D, BD), weight, WIDE)
    for start in tl.range(0, N, BN):
        c = start + tl.arange(0, BN)
        w = load_matrix(weight, c, columns, N, D, BN, BD, WIDE)
        pre = tl.dot(own, tl.trans(w), input_precision=PRECISION)
        views(
            pre, bias, scale_q, shift_q, scale_k, shift_k, q, k, rows, c, inside, N, BN,
            WIDE,
        )  # fmt: skip


@triton.jit
def views(
    pre,
    bias,
    scale_q,
    shift_q,
    scale_k,
    shift_k,
    q,
    k,
    rows,
    c,
    inside,
    N: tl.constexpr,
    BN: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Features c of q and k from W z."""
    pre += load_vector(bias, c, N)[None]
    u = pre * sigmoid(pre)
    one = u * load_vector(scale_q, c, N)[None] + load_vector(shift_q, c, N)[None]
    store_tile(q, one, rows, c, inside, N, BN, WIDE)
    one = u * load_vector(scale_k, c, N)[None] + load_vector(shift_k, c, N)[None]
    store_tile(k, one, rows, c, inside, N, BN, WIDE)


@triton.jit
def query_key_backward(
    dq,  # (tokens, N)
    dk,  # (tokens, N)
    z,  # (tokens, D)
    weight,  # (N, D)
    bias,  # (N,)
    scale_q,  # (N,)
    scale_k,  # (N,)
    dz,  # (tokens, D)
    dpre,  # (tokens, N): of the linear map's output
    sums,  # (tiles, 4 N) float32: of scale_q, shift_q, scale_k, shift_k
    tokens,
    D: tl.constexpr,
    N: tl.constexpr,
    BD: tl.constexpr,
    BN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradients of z and all vectors, and an operand of that of the weight."""
    columns = tl.arange(0, BD)
    first = tl.program_id(0) * ROWS
    rows, inside, _ = tile_rows(first, tokens, None, 1, ROWS, False)
    own = operand(load_tile(z, rows, columns, inside, D, BD), weight, WIDE)
    share = sums + (first // ROWS) * (4 * N)
    total = tl.zeros((ROWS, BD), tl.float32)
    for start in tl.range(0, N, BN):
        c = start + tl.arange(0, BN)
        w = load_matrix(weight, c, columns, N, D, BN, BD, WIDE)
        du = views_backward(
            own, w, weight, bias, scale_q, scale_k, dq, dk, dpre, share, rows, c,
            inside, N, BN, WIDE, PRECISION,
        )  # fmt: skip
        total = tl.dot(du, w, total, input_precision=PRECISION)
    store_tile(dz, total, rows, columns, inside, D, BD, WIDE)


@triton.jit
def views_backward(
    own,
    w,
    weight,
    bias,
    scale_q,
    scale_k,
    dq,
    dk,
    dpre,
    share,
    rows,
    c,
    inside,
    N: tl.constexpr,
    BN: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Features c: write their gradient before SiLU and their share of the vectors' gradients."""
    pre = tl.dot(own, tl.trans(w), input_precision=PRECISION) + load_vector(bias, c, N)[None]
    s = sigmoid(pre)
    u = pre * s
    g = load_tile(dq, rows, c, inside, N, BN)
    store_sum(share, g * u, c, weight, N, WIDE, PRECISION)
    store_sum(share + N, g, c, weight, N, WIDE, PRECISION)
    du = g * load_vector(scale_q, c, N)[None]
    g = load_tile(dk, rows, c, inside, N, BN)
    store_sum(share + 2 * N, g * u, c, weight, N, WIDE, PRECISION)
    store_sum(share + 3 * N, g, c, weight, N, WIDE, PRECISION)
    du += g * load_vector(scale_k, c, N)[None]
    du *= silu_slope(pre, s)
    store_tile(dpre, du, rows, c, inside, N, BN, WIDE)
    return operand(du, weight, WIDE)
