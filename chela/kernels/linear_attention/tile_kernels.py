"""What the Triton kernels of linear attention are made of: tiles of tokens, states, one step.

A tile is C tokens of one head, (C, d), with d filled up with zeros to a power of two. Loads return
zeros past a sequence's true length, so padding takes no part wherever a tile goes.

Two rules hold in every kernel. Under Triton's interpreter tl.dot misreads bfloat16, so tiles are
widened to float32 as they arrive (``WIDE``). And no dot reads a transposed result of an earlier
dot, which Triton 3.4 to 3.7.0 miscompiles on Hopper: what is needed transposed has a dot of its
own.
"""

import triton
import triton.language as tl


@triton.jit
def head_start(x, strides, b, h):
    """Where head h of sequence b begins in x (B, L, H, d) with element strides (B, L, H)."""
    return x + tl.cast(b, tl.int64) * strides[0] + tl.cast(h, tl.int64) * strides[2]


@triton.jit
def load_tile(
    start,
    row_stride,
    first,
    end,
    C: tl.constexpr,
    D: tl.constexpr,
    BD: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Tokens first .. first + C of one head as (C, BD); zeros from token ``end`` on."""
    rows = tl.arange(0, C)
    columns = tl.arange(0, BD)
    tile = start + tl.cast(first, tl.int64) * row_stride
    mask = (first + rows < end)[:, None]
    if D != BD:
        mask = mask & (columns < D)[None, :]
    x = tl.load(tile + rows[:, None] * row_stride + columns[None, :], mask=mask, other=0.0)
    if WIDE:
        x = x.to(tl.float32)
    return x


@triton.jit
def store_tile(
    start, row_stride, first, end, x, C: tl.constexpr, D: tl.constexpr, BD: tl.constexpr
):
    """Write (C, BD) to tokens first .. first + C of one head, those before ``end``."""
    rows = tl.arange(0, C)
    columns = tl.arange(0, BD)
    tile = start + tl.cast(first, tl.int64) * row_stride
    mask = (first + rows < end)[:, None]
    if D != BD:
        mask = mask & (columns < D)[None, :]
    pointers = tile + rows[:, None] * row_stride + columns[None, :]
    tl.store(pointers, x.to(start.dtype.element_ty), mask=mask)


@triton.jit
def state_pointers(states, index, DK: tl.constexpr, DV: tl.constexpr, rows, columns):
    """Pointers to elements (rows, columns) of state ``index`` in states (N, DK, DV), and a mask."""
    pointers = states + tl.cast(index, tl.int64) * (DK * DV) + rows * DV + columns
    return pointers, (rows < DK) & (columns < DV)


@triton.jit
def load_state(
    states, index, DK: tl.constexpr, DV: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr
):
    """State ``index`` of float32 states (N, DK, DV) as (BK, BV)."""
    rows, columns = tl.arange(0, BK)[:, None], tl.arange(0, BV)[None, :]
    pointers, mask = state_pointers(states, index, DK, DV, rows, columns)
    return tl.load(pointers, mask=mask, other=0.0)


@triton.jit
def load_state_transposed(
    states, index, DK: tl.constexpr, DV: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr
):
    """State ``index`` of float32 states (N, DK, DV) as (BV, BK)."""
    rows, columns = tl.arange(0, BK)[None, :], tl.arange(0, BV)[:, None]
    pointers, mask = state_pointers(states, index, DK, DV, rows, columns)
    return tl.load(pointers, mask=mask, other=0.0)


@triton.jit
def store_state(
    states, index, x, DK: tl.constexpr, DV: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr
):
    """Write (BK, BV) as state ``index`` of float32 states (N, DK, DV)."""
    rows, columns = tl.arange(0, BK)[:, None], tl.arange(0, BV)[None, :]
    pointers, mask = state_pointers(states, index, DK, DV, rows, columns)
    tl.store(pointers, x, mask=mask)


@triton.jit
def attend(a, b, c, state, seen, PRECISION: tl.constexpr):
    """One chunk of causal attention: (a b^T where seen) c + a state, and state + b^T c.

    With (a, b, c) = (q, k, v) walking forward it gives the output; each gradient is the same step:
    dq from (do, v, k) walking forward, dk from (v, do, q) and dv from (k, q, do) walking back.

    The order of the dots matters: with any dot between the scores and their product, ptxas runs the
    tensor cores' instructions one by one.
    """
    before = state.to(a.dtype)
    state = tl.dot(tl.trans(b), c, acc=state, input_precision=PRECISION)
    scores = tl.where(seen, tl.dot(a, tl.trans(b), input_precision=PRECISION), 0.0)
    out = tl.dot(a, before, input_precision=PRECISION)
    out = tl.dot(scores.to(c.dtype), c, acc=out, input_precision=PRECISION)
    return out, state


@triton.jit
def normalise_and_gate(
    o,
    weight,
    gate,
    EPS: tl.constexpr,
    DV: tl.constexpr,
    HEADS: tl.constexpr,
    NORM: tl.constexpr,
    GATE: tl.constexpr,
):
    """The epilogue o / rms(o) * weight * silu(gate) on (C, BV) in float32; weight is (BV,).

    The BV columns are HEADS heads side by side, together DV channels without the padding.
    """
    if NORM:
        C: tl.constexpr = o.shape[0]
        BV: tl.constexpr = o.shape[1]
        each = tl.reshape(o, (C, HEADS, BV // HEADS))
        scale = tl.rsqrt(tl.sum(each * each, axis=2) / (DV // HEADS) + EPS)
        o = tl.reshape(each * scale[:, :, None], (C, BV)) * weight[None, :]
    if GATE:
        g = gate.to(tl.float32)
        o = o * g * tl.sigmoid(g)
    return o
