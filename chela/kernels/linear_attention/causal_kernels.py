"""Triton kernels of causal linear attention: walks along a sequence, the state on the chip.

A program has one head of one sequence, or a part of it, and keeps the state in registers while it
walks from chunk to chunk. The output is one walk, forward. Each gradient is one walk as well, over
three of q, k, v and dout in other roles: dq forward, dk and dv back. The three walks of a head run
side by side in one launch, so that what one has read the others find in the L2 cache.

Where there are too few heads to fill a GPU, the sequence is split into parts, for the gradient
perhaps into more than for the output. What a part of the output starts from, and a part of dk and
dv, ``state_kernels`` finds; what a part of dq starts from, the forward walk leaves behind.
"""

import triton
import triton.language as tl

from chela.kernels.linear_attention.tile_kernels import (
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
    saved,  # (B * H, ceil(L / save_tokens), DK, DV): the state before each save_tokens tokens
    final,  # (B * H, DK, DV)
    q_strides,
    k_strides,
    v_strides,
    gate_strides,
    out_strides,
    H,
    L,
    part_tokens,
    save_tokens,  # a multiple of C that divides part_tokens, or all of L
    EPS: tl.constexpr,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
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
    begin = part * part_tokens
    stop = tl.minimum(begin + part_tokens, L)
    for first in range(begin, stop, C):
        if SAVE:  # noqa: SIM102
            # one condition is decided by the compiler, the other by the program
            if first % save_tokens == 0:
                index = bh * tl.cdiv(L, save_tokens) + first // save_tokens
                store_state(saved, index, state, DK, DV, BK, BV)
        q_c = load_tile(q, q_strides[1], first, end, C, DK, BK, WIDE)  # (C, BK)
        k_c = load_tile(k, k_strides[1], first, end, C, DK, BK, WIDE)  # (C, BK)
        v_c = load_tile(v, v_strides[1], first, end, C, DV, BV, WIDE)  # (C, BV)
        o_c, state = attend(q_c, k_c, v_c, state, seen, PRECISION)
        if SAVE and (NORM or GATE):
            store_tile(raw, out_strides[1], first, L, o_c, C, DV, BV)
        if GATE:
            g_c = load_tile(gate, gate_strides[1], first, end, C, DV, BV, WIDE)
        else:
            g_c = 0.0
        o_c = normalise_and_gate(o_c, gain, g_c, EPS, DV, 1, NORM, GATE)
        store_tile(out, out_strides[1], first, L, o_c, C, DV, BV)
    if part == tl.num_programs(1) - 1:
        store_state(final, bh, state, DK, DV, BK, BV)


@triton.jit
def walk(
    a,
    b,
    c,
    out,
    a_stride,
    b_stride,
    c_stride,
    out_stride,
    state,
    begin,
    stop,
    end,
    L,
    DA: tl.constexpr,
    DC: tl.constexpr,
    BA: tl.constexpr,
    BC: tl.constexpr,
    C: tl.constexpr,
    BACK: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """out = causal attention of (a, b, c) on tokens begin .. stop; anticausal, going ``BACK``."""
    rows, columns = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    seen = rows <= columns if BACK else rows >= columns
    chunks = tl.cdiv(stop - begin, C)
    for chunk in range(chunks):
        first = begin + (chunks - 1 - chunk if BACK else chunk) * C
        a_c = load_tile(a, a_stride, first, end, C, DA, BA, WIDE)  # (C, BA)
        b_c = load_tile(b, b_stride, first, end, C, DA, BA, WIDE)  # (C, BA)
        c_c = load_tile(c, c_stride, first, end, C, DC, BC, WIDE)  # (C, BC)
        out_c, state = attend(a_c, b_c, c_c, state, seen, PRECISION)
        store_tile(out, out_stride, first, L, out_c, C, DC, BC)
    return state


@triton.jit
def causal_backward(
    q,
    k,
    v,
    dout,
    lengths,  # (B,)
    before,  # (B * H, parts, DK, DV): the state each part starts from
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
    RAGGED: tl.constexpr,
    AFTER: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One of dq, dk, dv (and the initial state's gradient with dv) for one part of one head."""
    bh, part = tl.program_id(0) // 3, tl.program_id(1)
    b, h = bh // H, bh % H
    end = tl.load(lengths + b).to(tl.int32) if RAGGED else L
    q, k = head_start(q, q_strides, b, h), head_start(k, k_strides, b, h)
    v, dout = head_start(v, v_strides, b, h), head_start(dout, dout_strides, b, h)
    begin = part * part_tokens
    stop = tl.minimum(begin + part_tokens, L)
    index = bh * tl.num_programs(1) + part
    if tl.program_id(0) % 3 == 0:
        before_q = load_state_transposed(before, index, DK, DV, BK, BV)
        dq = head_start(dq, dq_strides, b, h)
        walk(
            dout, v, k, dq, dout_strides[1], v_strides[1], k_strides[1], dq_strides[1], before_q,
            begin, stop, end, L, DV, DK, BV, BK, C, False, WIDE, PRECISION,
        )  # fmt: skip
    elif tl.program_id(0) % 3 == 1:
        if AFTER:
            later_k = load_state_transposed(after, index, DK, DV, BK, BV)
        else:
            later_k = tl.zeros((BV, BK), tl.float32)
        dk = head_start(dk, dq_strides, b, h)
        walk(
            v, dout, q, dk, v_strides[1], dout_strides[1], q_strides[1], dq_strides[1], later_k,
            begin, stop, end, L, DV, DK, BV, BK, C, True, WIDE, PRECISION,
        )  # fmt: skip
    else:
        if AFTER:
            later_v = load_state(after, index, DK, DV, BK, BV)
        else:
            later_v = tl.zeros((BK, BV), tl.float32)
        dv = head_start(dv, dv_strides, b, h)
        later_v = walk(
            k, q, dout, dv, k_strides[1], q_strides[1], dout_strides[1], dv_strides[1], later_v,
            begin, stop, end, L, DK, DV, BK, BV, C, True, WIDE, PRECISION,
        )  # fmt: skip
        if part == 0:
            store_state(dinitial, bh, later_v, DK, DV, BK, BV)
