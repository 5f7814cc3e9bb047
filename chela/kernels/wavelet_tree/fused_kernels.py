"""Triton kernels of a tree of wavelets with two taps a filter, in float32.

The bits b_j of a lag t say which tap it takes at each scale, so that each has a Horner scheme of
its own, from the widest scale to the narrowest:

    x_J = w_J,   x_j = h[b_j] x_{j+1} + [t < 2^(j+1)] w_j g[b_j],   K(t) = x_0

Where a high bit is set, the low ones do no more than multiply: K is an outer product, of a tree
over the high bits and the low bits' taps of h, and their high-pass for the first lags alone. The
gradient is two sums over a tile, and then that of two small trees.
"""

import triton
import triton.language as tl


@triton.jit
def _taps(at, zero, one):
    """The tap that a lag takes whose bits from a scale on are ``at``."""
    return tl.where((at & 1) == 1, one, zero)


@triton.jit
def _two_filters(filters, row, rows):
    """h[0], h[1], g[0] and g[1] of a row of (2, rows, 2)."""
    h, g = filters + row * 2, filters + (rows + row) * 2
    return tl.load(h), tl.load(h + 1), tl.load(g), tl.load(g + 1)


@triton.jit
def _descend(t, start, share, h0, h1, g0, g1, weights, scales):
    """x_0 of the scheme for lags t, from x_scales = ``start`` and weights times ``share``."""
    x = start
    for above in range(scales):
        j = scales - 1 - above
        at = t >> j
        high = share * tl.load(weights + j) * _taps(at, g0, g1)
        x = _taps(at, h0, h1) * x + tl.where(at < 2, high, 0.0)
    return x


@triton.jit
def _gradients(t, start, share, h0, h1, g0, g1, weights, dweights, scales, stored, S: tl.constexpr):
    """Those of sum_t x_0(t): of h and g; the first ``stored`` of weights are written.

    A scale j is a row: beside x_{j+1}, the product of the taps of h that it still meets.
    """
    j, t = tl.arange(0, S)[:, None], t[None, :]
    share = share[None, :]
    product = tl.full((S, start.shape[0]), 1.0, tl.float32)  # (S, lags)
    x = product * start[None, :]
    for above in range(scales):
        i = scales - 1 - above
        at = t >> i
        h = _taps(at, h0, h1)
        high = share * tl.load(weights + i) * _taps(at, g0, g1)
        x = tl.where(i > j, h * x + tl.where(at < 2, high, 0.0), x)
        product *= tl.where(i < j, h, 1.0)
    at, own = t >> j, j < scales
    odd = (at & 1) == 1
    dh = tl.where(own, product * x, 0.0)
    share = product * share
    dhigh = tl.where(own & (at < 2), share, 0.0)
    dg = tl.load(weights + j, mask=own, other=0.0) * dhigh
    dweight = tl.where(own, dhigh * _taps(at, g0, g1), share)  # the last counts by itself
    j = tl.arange(0, S)
    tl.store(dweights + j, tl.sum(dweight, axis=1), mask=j < stored)
    dh1, dg1 = tl.sum(tl.where(odd, dh, 0.0)), tl.sum(tl.where(odd, dg, 0.0))
    return tl.sum(tl.where(odd, 0.0, dh)), dh1, tl.sum(tl.where(odd, 0.0, dg)), dg1


@triton.jit
def wavelet_tree_forward(
    filters,  # (2, K, D, 2)
    weights,  # (K, D, J + 1)
    out,  # (K, D, L)
    L,
    J,
    ROWS: tl.constexpr,
    LOW: tl.constexpr,
):
    """ROWS times 2^LOW taps of one channel and direction."""
    row, rows = tl.program_id(0), tl.num_programs(0)
    h0, h1, g0, g1 = _two_filters(filters, row, rows)
    weights += row * (J + 1)
    low = min(LOW, J)
    t = tl.arange(0, 1 << LOW)
    high = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    none, one = tl.zeros((1 << LOW,), tl.float32), tl.full((1 << LOW,), 1.0, tl.float32)
    whole = tl.full((ROWS,), 1.0, tl.float32)
    factor = _descend(t, one, none, h0, h1, g0, g1, weights, low)
    first = _descend(t, none, one, h0, h1, g0, g1, weights, low)
    last = tl.load(weights + J) * whole
    coarse = _descend(high, last, whole, h0, h1, g0, g1, weights + low, J - low)
    taps = coarse[:, None] * factor[None, :] + tl.where((high == 0)[:, None], first[None, :], 0.0)
    at = (high[:, None] << LOW) + t[None, :]
    tl.store(out + row.to(tl.int64) * L + at, taps, mask=at < L)


@triton.jit
def wavelet_tree_backward(
    filters,  # (2, K, D, 2)
    weights,  # (K, D, J + 1)
    dout,  # (K, D, L)
    dfilters,  # (parts, 2, K, D, 2)
    dweights,  # (parts, K, D, J + 1)
    L,
    J,
    ROWS: tl.constexpr,
    LOW: tl.constexpr,
    S: tl.constexpr,  # more than the scales of either
):
    """What ROWS times 2^LOW taps of one channel and direction add to its gradients."""
    row, rows, part = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    h0, h1, g0, g1 = _two_filters(filters, row, rows)
    weights += row * (J + 1)
    dweights += (part * rows + row) * (J + 1)
    low = min(LOW, J)
    t = tl.arange(0, 1 << LOW)
    high = part * ROWS + tl.arange(0, ROWS)
    none, one = tl.zeros((1 << LOW,), tl.float32), tl.full((1 << LOW,), 1.0, tl.float32)
    whole = tl.full((ROWS,), 1.0, tl.float32)
    last = tl.load(weights + J)
    factor = _descend(t, one, none, h0, h1, g0, g1, weights, low)
    coarse = _descend(high, last * whole, whole, h0, h1, g0, g1, weights + low, J - low)

    dout += row.to(tl.int64) * L
    at = (high[:, None] << LOW) + t[None, :]
    d = tl.load(dout + at, mask=at < L, other=0.0)
    dfirst = tl.load(dout + t, mask=(t < L) & (part == 0), other=0.0)
    dfactor = tl.sum(d * coarse[:, None], axis=0)
    dcoarse = tl.sum(d * factor[None, :], axis=1)

    # x is linear in its start and its weights: what its gradient is multiplied by goes into them.
    a0, a1, b0, b1 = _gradients(t, dfactor, dfirst, h0, h1, g0, g1, weights, dweights, low, low, S)
    c0, c1, d0, d1 = _gradients(
        high, last * dcoarse, dcoarse, h0, h1, g0, g1,
        weights + low, dweights + low, J - low, J - low + 1, S,
    )  # fmt: skip
    dfilters += (part * 2 * rows + row) * 2
    tl.store(dfilters, a0 + c0)
    tl.store(dfilters + 1, a1 + c1)
    tl.store(dfilters + 2 * rows, b0 + d0)
    tl.store(dfilters + 2 * rows + 1, b1 + d1)
