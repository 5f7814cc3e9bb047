"""Triton kernel of a linear map's weight gradient: few outputs, summed over very many tokens.

The tokens are split into as many parts as fill the GPU; each program sums its part of one tile of
the weight in float32, and the parts are added afterwards, in a fixed order.
"""

import triton
import triton.language as tl


@triton.jit
def token_weight_gradient(
    dy,  # (tokens, N)
    x,  # (tokens, K)
    shares,  # (parts, N K + N) float32: of the weight, of the bias
    tokens,
    part,  # tokens per part, a multiple of ROWS
    N: tl.constexpr,
    K: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """dy^T x and the sum of dy over its tokens, each over a part of the tokens."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    split = tl.program_id(2)
    first = split * part
    shares += split.to(tl.int64) * (N * K + N)
    rows = first + tl.arange(0, ROWS)
    ys = dy + rows.to(tl.int64)[:, None] * N + n[None, :]
    xs = x + rows.to(tl.int64)[:, None] * K + k[None, :]
    if WIDE:
        ones = tl.full((ROWS, 16), 1.0, tl.float32)
    else:
        ones = tl.full((ROWS, 16), 1.0, dy.dtype.element_ty)
    product = tl.zeros((BN, BK), tl.float32)
    total = tl.zeros((BN, 16), tl.float32)  # 16 times the same: the fewest columns of a product
    for start in tl.range(first, tl.minimum(first + part, tokens), ROWS):
        inside = (start + tl.arange(0, ROWS) < tokens)[:, None]
        a = tl.load(ys, mask=inside if N % BN == 0 else inside & (n < N)[None, :], other=0.0)
        b = tl.load(xs, mask=inside if K % BK == 0 else inside & (k < K)[None, :], other=0.0)
        if WIDE:
            a, b = a.to(tl.float32), b.to(tl.float32)
        product = tl.dot(tl.trans(a), b, product, input_precision="ieee")
        total = tl.dot(tl.trans(a), ones, total, input_precision="ieee")
        ys += ROWS * N
        xs += ROWS * K
    mask = (n < N)[:, None] & (k < K)[None, :]
    tl.store(shares + n[:, None] * K + k[None, :], product, mask=mask)
    if tl.program_id(1) == 0:
        mean = tl.sum(total, axis=1) / 16  # exact: 16 equal summands
        tl.store(shares + N * K + n, mean, mask=n < N)
