"""Triton kernels of causal linear attention: one walk forward, and one there and back.

A program has one head of one sequence, or a part of it, and keeps the state on the chip while it
walks from chunk to chunk. The forward walk leaves the state at the start of every segment (some
chunks) behind. The backward walk takes the segments from the last to the first: forward through a
segment from its stored state for dq, back through it for dk and dv. What the way there has read is
still in the L2 cache on the way back, so that each tensor passes through memory about once.

Where there are too few heads to fill a GPU, the sequence is split into parts, each of whole
segments; ``states`` has the kernels that find what each part starts from.
"""

import triton
import triton.language as tl

from chela.kernels.linear_attention.tiles import (
    attend,
    head_start,
    load_state,
    load_state_transposed,
    load_tile,
    normalise_and_gate,
    store_state,
    store_tile,
)


@triton.jit
def causal_forward(
    q,
    k,
    v,
    gate,
    weight,  # (DV,)
    lengths,  # (B,)
    before,  # (B * H, parts, DK, DV): the state each part starts from
    out,
    raw,  # out before the epilogue, kept for its gradient
    segments,  # (B * H, ceil(L / SEGMENT), DK, DV): the state each segment starts from
    final,  # (B * H, DK, DV)
    q_strides,
    k_strides,
    v_strides,
    gate_strides,
    out_strides,
    H,
    L,
    part_tokens,
    EPS: tl.constexpr,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    SEGMENT: tl.constexpr,
    RAGGED: tl.constexpr,
    BEFORE: tl.constexpr,
    NORM: tl.constexpr,
    GATE: tl.constexpr,
    SAVE: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """out = epilogue(causal attention) for part program_id(1) of head program_id(0)."""
    bh, part = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    end = tl.load(lengths + b).to(tl.int32) if RAGGED else L
    q, k = head_start(q, q_strides, b, h), head_start(k, k_strides, b, h)
    v, out = head_start(v, v_strides, b, h), head_start(out, out_strides, b, h)
    if GATE:
        gate = head_start(gate, gate_strides, b, h)
    if SAVE and (NORM or GATE):
        raw = head_start(raw, out_strides, b, h)
    if NORM:
        columns = tl.arange(0, BV)
        gain = tl.load(weight + columns, mask=columns < DV, other=0.0).to(tl.float32)
    else:
        gain = 0.0
    if BEFORE:
        state = load_state(before, bh * tl.num_programs(1) + part, DK, DV, BK, BV)
    else:
        state = tl.zeros((BK, BV), tl.float32)
    seen = tl.arange(0, C)[:, None] >= tl.arange(0, C)[None, :]
    num_segments = tl.cdiv(L, SEGMENT)
    begin = part * part_tokens
    for first in range(begin, tl.minimum(begin + part_tokens, L), C):
        if SAVE:
            index = bh * num_segments + first // SEGMENT
            store_state(segments, index, state, first % SEGMENT == 0, DK, DV, BK, BV)
        q_c = load_tile(q, q_strides[1], first, end, C, DK, BK, WIDE)  # (C, BK)
        k_c = load_tile(k, k_strides[1], first, end, C, DK, BK, WIDE)
        v_c = load_tile(v, v_strides[1], first, end, C, DV, BV, WIDE)  # (C, BV)
        o_c, state = attend(q_c, k_c, v_c, state, seen, PRECISION)
        if SAVE and (NORM or GATE):
            store_tile(raw, out_strides[1], first, L, o_c, C, DV, BV)
        if GATE:
            g_c = load_tile(gate, gate_strides[1], first, end, C, DV, BV, WIDE)
        else:
            g_c = 0.0
        o_c = normalise_and_gate(o_c, gain, g_c, EPS, DV, NORM, GATE)
        store_tile(out, out_strides[1], first, L, o_c, C, DV, BV)
    store_state(final, bh, state, part == tl.num_programs(1) - 1, DK, DV, BK, BV)


@triton.jit
def causal_backward(
    q,
    k,
    v,
    dout,
    lengths,  # (B,)
    segments,  # (B * H, ceil(L / SEGMENT), DK, DV): the state each segment starts from
    after,  # (B * H, parts, DK, DV): the state's gradient at the end of each part
    dq,
    dk,
    dv,
    dinitial,  # (B * H, DK, DV)
    q_strides,
    k_strides,
    v_strides,
    dout_strides,
    dq_strides,  # dk's as well
    dv_strides,
    H,
    L,
    part_tokens,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    SEGMENT: tl.constexpr,
    RAGGED: tl.constexpr,
    AFTER: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dq, dk, dv and the initial state's gradient, for one part of one head."""
    bh, part = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    end = tl.load(lengths + b).to(tl.int32) if RAGGED else L
    q, k = head_start(q, q_strides, b, h), head_start(k, k_strides, b, h)
    v, dout = head_start(v, v_strides, b, h), head_start(dout, dout_strides, b, h)
    dq, dk = head_start(dq, dq_strides, b, h), head_start(dk, dq_strides, b, h)
    dv = head_start(dv, dv_strides, b, h)
    if AFTER:
        index = bh * tl.num_programs(1) + part
        state_dv = load_state(after, index, DK, DV, BK, BV)  # sum of q^T dout over later tokens
        state_dk = load_state_transposed(after, index, DK, DV, BK, BV)  # and of dout^T q
    else:
        state_dv = tl.zeros((BK, BV), tl.float32)
        state_dk = tl.zeros((BV, BK), tl.float32)
    rows, columns = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    num_segments = tl.cdiv(L, SEGMENT)
    begin = part * part_tokens // SEGMENT
    stop = tl.minimum(begin + part_tokens // SEGMENT, num_segments)
    for step in range(stop - begin):
        segment = stop - 1 - step
        start = segment * SEGMENT
        chunks = tl.cdiv(tl.minimum(SEGMENT, L - start), C)
        state = load_state_transposed(segments, bh * num_segments + segment, DK, DV, BK, BV)
        for chunk in range(chunks):
            first = start + chunk * C
            k_c = load_tile(k, k_strides[1], first, end, C, DK, BK, WIDE)  # (C, BK)
            v_c = load_tile(v, v_strides[1], first, end, C, DV, BV, WIDE)  # (C, BV)
            do_c = load_tile(dout, dout_strides[1], first, end, C, DV, BV, WIDE)
            dq_c, state = attend(do_c, v_c, k_c, state, rows >= columns, PRECISION)
            store_tile(dq, dq_strides[1], first, L, dq_c, C, DK, BK)
        for chunk in range(chunks):
            first = start + (chunks - 1 - chunk) * C
            q_c = load_tile(q, q_strides[1], first, end, C, DK, BK, WIDE)
            k_c = load_tile(k, k_strides[1], first, end, C, DK, BK, WIDE)
            v_c = load_tile(v, v_strides[1], first, end, C, DV, BV, WIDE)
            do_c = load_tile(dout, dout_strides[1], first, end, C, DV, BV, WIDE)
            dv_c, state_dv = attend(k_c, q_c, do_c, state_dv, rows <= columns, PRECISION)
            dk_c, state_dk = attend(v_c, do_c, q_c, state_dk, rows <= columns, PRECISION)
            store_tile(dk, dq_strides[1], first, L, dk_c, C, DK, BK)
            store_tile(dv, dv_strides[1], first, L, dv_c, C, DV, BV)
    store_state(dinitial, bh, state_dv, part == 0, DK, DV, BK, BV)
