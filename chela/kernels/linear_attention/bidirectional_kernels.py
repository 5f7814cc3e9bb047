"""Triton kernels of bidirectional linear attention: streams past a state that is already known.

o = q S with S = mean of k^T v; backward, dq = do S^T and dS = mean of q^T do in one pass over q and
do, then dk = v dS^T and dv = k dS in one pass over k and v. Each tensor is read once and written
once.

Narrow heads come packed: HEADS of them side by side look like one head, of which the rows of a tile
are long enough for the memory. Their state is block-diagonal; ``mean_state`` sees to that.
"""

import triton
import triton.language as tl

from chela.kernels.linear_attention.tile_kernels import (
    head_start,
    load_state,
    load_state_transposed,
    load_tile,
    normalise_and_gate,
    store_state,
    store_tile,
)


@triton.jit
def bidirectional_output(
    q,
    gate,
    weight,  # (DV / HEADS,)
    lengths,  # (B,)
    states,  # (B * H, DK, DV)
    out,
    raw,  # out before the epilogue, kept for its gradient
    q_strides,
    gate_strides,
    out_strides,
    H,
    L,
    part_tokens,
    EPS: tl.constexpr,
    HEADS: tl.constexpr,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    RAGGED: tl.constexpr,
    NORM: tl.constexpr,
    GATE: tl.constexpr,
    SAVE: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """out = epilogue(q state) for part program_id(1) of head program_id(0)."""
    bh, part = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    end = tl.load(lengths + b).to(tl.int32) if RAGGED else L
    q, out = head_start(q, q_strides, b, h), head_start(out, out_strides, b, h)
    if GATE:
        gate = head_start(gate, gate_strides, b, h)
    if SAVE and (NORM or GATE):
        raw = head_start(raw, out_strides, b, h)
    if NORM:
        columns = tl.arange(0, BV)
        gain = tl.load(weight + columns % (DV // HEADS), mask=columns < DV, other=0.0).to(
            tl.float32
        )
    else:
        gain = 0.0
    state = load_state(states, bh, DK, DV, BK, BV)
    begin = part * part_tokens
    for first in range(begin, tl.minimum(begin + part_tokens, L), C):
        q_c = load_tile(q, q_strides[1], first, end, C, DK, BK, WIDE)  # (C, BK)
        o_c = tl.dot(q_c, state.to(q_c.dtype), input_precision=PRECISION)  # (C, BV)
        if SAVE and (NORM or GATE):
            store_tile(raw, out_strides[1], first, L, o_c, C, DV, BV)
        if GATE:
            g_c = load_tile(gate, gate_strides[1], first, end, C, DV, BV, WIDE)
        else:
            g_c = 0.0
        o_c = normalise_and_gate(o_c, gain, g_c, EPS, DV, HEADS, NORM, GATE)
        store_tile(out, out_strides[1], first, L, o_c, C, DV, BV)


@triton.jit
def bidirectional_backward_query(
    q,
    dout,
    lengths,  # (B,)
    states,  # (B * H, DK, DV)
    dq,
    sums,  # (B * H, parts, DK, DV): each part's share of the state's gradient
    q_strides,
    dout_strides,
    dq_strides,
    H,
    L,
    part_tokens,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dq = dout state^T and sums = sum of q^T dout, for one part of one head."""
    bh, part = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    end = tl.load(lengths + b).to(tl.int32) if RAGGED else L
    q, dout = head_start(q, q_strides, b, h), head_start(dout, dout_strides, b, h)
    dq = head_start(dq, dq_strides, b, h)
    state = load_state_transposed(states, bh, DK, DV, BK, BV)
    dstate = tl.zeros((BK, BV), tl.float32)
    begin = part * part_tokens
    for first in range(begin, tl.minimum(begin + part_tokens, L), C):
        q_c = load_tile(q, q_strides[1], first, end, C, DK, BK, WIDE)  # (C, BK)
        do_c = load_tile(dout, dout_strides[1], first, end, C, DV, BV, WIDE)  # (C, BV)
        dq_c = tl.dot(do_c, state.to(do_c.dtype), input_precision=PRECISION)
        store_tile(dq, dq_strides[1], first, L, dq_c, C, DK, BK)
        dstate = tl.dot(tl.trans(q_c), do_c, acc=dstate, input_precision=PRECISION)
    store_state(sums, bh * tl.num_programs(1) + part, dstate, DK, DV, BK, BV)


@triton.jit
def bidirectional_backward_key(
    k,
    v,
    lengths,  # (B,)
    dstates,  # (B * H, DK, DV)
    dk,
    dv,
    k_strides,
    v_strides,
    dk_strides,
    dv_strides,
    H,
    L,
    part_tokens,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dk = v dstate^T and dv = k dstate, for one part of one head."""
    bh, part = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    end = tl.load(lengths + b).to(tl.int32) if RAGGED else L
    k, v = head_start(k, k_strides, b, h), head_start(v, v_strides, b, h)
    dk, dv = head_start(dk, dk_strides, b, h), head_start(dv, dv_strides, b, h)
    dstate = load_state(dstates, bh, DK, DV, BK, BV)
    dstate_t = load_state_transposed(dstates, bh, DK, DV, BK, BV)
    begin = part * part_tokens
    for first in range(begin, tl.minimum(begin + part_tokens, L), C):
        k_c = load_tile(k, k_strides[1], first, end, C, DK, BK, WIDE)  # (C, BK)
        v_c = load_tile(v, v_strides[1], first, end, C, DV, BV, WIDE)  # (C, BV)
        dk_c = tl.dot(v_c, dstate_t.to(v_c.dtype), input_precision=PRECISION)
        dv_c = tl.dot(k_c, dstate.to(k_c.dtype), input_precision=PRECISION)
        store_tile(dk, dk_strides[1], first, L, dk_c, C, DK, BK)
        store_tile(dv, dv_strides[1], first, L, dv_c, C, DV, BV)
