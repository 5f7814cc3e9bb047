"""Triton kernels of norm, linear map and SiLU: the tokens are read once for both results."""

import triton
import triton.language as tl

from chela.kernels.tokens.tiles import (
    affine,
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
)


@triton.jit
def norm_linear_forward(
    x,  # (tokens, D)
    norm_weight,  # (D,), or None
    norm_bias,  # (D,), or None
    weight,  # (N, D)
    bias,  # (N,)
    lengths,  # (B,), or None
    normal,  # (tokens, D)
    y,  # (tokens, N)
    tokens,
    L,
    eps,
    D: tl.constexpr,
    N: tl.constexpr,
    BD: tl.constexpr,
    BN: tl.constexpr,
    ROWS: tl.constexpr,
    NORM: tl.constexpr,
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """normal = n(x), zero at padded tokens, and y = silu(W normal + bias)."""
    columns = tl.arange(0, BD)
    first = tl.program_id(0) * ROWS
    rows, inside, real = tile_rows(first, tokens, lengths, L, ROWS, RAGGED)
    own = load_tile(x, rows, columns, real, D, BD)
    mean, scale = statistics(own, columns, eps, D, NORM)
    own = standardised(own, mean, scale, columns, D, NORM)
    n = affine(own, columns, norm_weight, norm_bias, D, NORM)
    if RAGGED:
        n = tl.where(real[:, None], n, 0.0)
    store_tile(normal, n, rows, columns, inside, D, BD, WIDE)
    n = operand(n, weight, WIDE)
    for start in tl.range(0, N, BN):
        c = start + tl.arange(0, BN)
        w = load_matrix(weight, c, columns, N, D, BN, BD, WIDE)
        project(n, w, bias, y, rows, c, inside, N, BN, WIDE, PRECISION)


@triton.jit
def project(
    n,
    w,
    bias,
    y,
    rows,
    c,
    inside,
    N: tl.constexpr,
    BN: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Features c of y."""
    pre = tl.dot(n, tl.trans(w), input_precision=PRECISION) + load_vector(bias, c, N)[None]
    store_tile(y, pre * sigmoid(pre), rows, c, inside, N, BN, WIDE)


@triton.jit
def norm_linear_backward(
    dnormal,  # (tokens, D)
    dy,  # (tokens, N)
    x,  # (tokens, D)
    norm_weight,  # (D,), or None
    norm_bias,  # (D,), or None
    weight,  # (N, D)
    bias,  # (N,)
    lengths,  # (B,), or None
    dx,  # (tokens, D)
    dpre,  # (tokens, N): of the linear map's output
    sums,  # (tiles, 2 D) float32: of norm weight, norm bias; or None
    tokens,
    L,
    eps,
    D: tl.constexpr,
    N: tl.constexpr,
    BD: tl.constexpr,
    BN: tl.constexpr,
    ROWS: tl.constexpr,
    NORM: tl.constexpr,
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of the tokens through both results, and an operand of that of the weight."""
    columns = tl.arange(0, BD)
    first = tl.program_id(0) * ROWS
    rows, inside, real = tile_rows(first, tokens, lengths, L, ROWS, RAGGED)
    own = load_tile(x, rows, columns, real, D, BD)
    mean, scale = statistics(own, columns, eps, D, NORM)
    own = standardised(own, mean, scale, columns, D, NORM)
    n = affine(own, columns, norm_weight, norm_bias, D, NORM)
    if RAGGED:
        n = tl.where(real[:, None], n, 0.0)
    n = operand(n, weight, WIDE)
    dn = load_tile(dnormal, rows, columns, real, D, BD)
    for start in tl.range(0, N, BN):
        c = start + tl.arange(0, BN)
        w = load_matrix(weight, c, columns, N, D, BN, BD, WIDE)
        dn = project_backward(
            dn, n, w, weight, bias, dy, dpre, rows, c, inside, N, BN, WIDE, PRECISION
        )
    if RAGGED:
        dn = tl.where(real[:, None], dn, 0.0)
    if NORM != "none":
        own = load_tile(x, rows, columns, real, D, BD)  # again: it need not stay in registers
        own = standardised(own, mean, scale, columns, D, NORM)
        share = sums + (first // ROWS) * (2 * D)
        store_exact_sum(share, dn * own, columns, D)
        store_exact_sum(share + D, dn, columns, D)
        dn = normalise_backward(dn, own, scale, columns, norm_weight, D, NORM)
    store_tile(dx, dn, rows, columns, inside, D, BD, WIDE)


@triton.jit
def project_backward(
    dn,
    n,
    w,
    weight,
    bias,
    dy,
    dpre,
    rows,
    c,
    inside,
    N: tl.constexpr,
    BN: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Features c: write their gradient before SiLU, and add their share to dn."""
    pre = tl.dot(n, tl.trans(w), input_precision=PRECISION) + load_vector(bias, c, N)[None]
    g = load_tile(dy, rows, c, inside, N, BN) * silu_slope(pre, sigmoid(pre))
    store_tile(dpre, g, rows, c, inside, N, BN, WIDE)
    return tl.dot(operand(g, weight, WIDE), w, dn, input_precision=PRECISION)
