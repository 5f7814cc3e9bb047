"""Triton kernels of causal linear attention that forgets, chunk by chunk.

The heads of v share one q and k. With what ``decayed_state_kernels`` leaves behind no chunk waits
for another: a program has all heads of one chunk, so that what they share is loaded once, and the
gradients of q and k are summed up in registers. With (q, k, v, S) replaced by (k, q, do, dS) and
time reversed, the output's formula is that of dv, and with (do, v, S, k) by (v, do, dS, q) that of
dq is that of dk.

``decays`` (B, H, N, C) are the running sums c of log_decay within each chunk, to which padding adds
nothing; T is a chunk's last. Only differences at most 0 are raised to a power.
"""

import triton
import triton.language as tl

from chela.kernels.linear_attention.decayed_state_kernels import chunk_decays, to_the_end
from chela.kernels.linear_attention.tile_kernels import (
    head_start,
    load_state,
    load_tile,
    normalise_and_gate,
    store_tile,
)
from chela.kernels.tokens.tiles import operand, rounded


@triton.jit
def _weights(c, BACK: tl.constexpr, C: tl.constexpr):
    """exp(c_i - c_j) where i >= j, else 0, as (i, j); going ``BACK`` as (j, i)."""
    seen = tl.arange(0, C)[:, None] >= tl.arange(0, C)[None, :]
    gap = c[:, None] - c[None, :]
    if BACK:
        seen = tl.arange(0, C)[:, None] <= tl.arange(0, C)[None, :]
        gap = -gap
    return tl.exp(tl.where(seen, gap, float("-inf")))


@triton.jit
def _narrow_state(
    states,
    index,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    WIDE: tl.constexpr,
):
    """State ``index`` in the dtype of the products."""
    state = load_state(states, index, DK, DV, BK, BV)
    if WIDE:
        state = state.to(tl.float32)
    return state


@triton.jit
def decayed_output(
    q,
    k,
    v,
    decays,  # (B, H, N, C)
    gate,
    weight,  # (DV,)
    lengths,  # (B,)
    states,  # (B, N, H, DK, DV): what each chunk starts from
    out,
    raw,  # out before the epilogue, kept for its gradient
    q_strides,
    k_strides,
    v_strides,
    gate_strides,
    out_strides,
    H,
    L,
    EPS: tl.constexpr,
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
    """out = epilogue(causal attention) for all heads of chunk program_id(0), program_id(1)'s."""
    n, batch = tl.program_id(0), tl.program_id(1)
    first = n * C
    end = tl.load(lengths + batch).to(tl.int32) if RAGGED else L
    q_c = load_tile(head_start(q, q_strides, batch, 0), q_strides[1], first, end, C, DK, BK, WIDE)
    k_c = load_tile(head_start(k, k_strides, batch, 0), k_strides[1], first, end, C, DK, BK, WIDE)
    if NORM:
        columns = tl.arange(0, BV)
        gain = tl.load(weight + columns, mask=columns < DV, other=0.0).to(tl.float32)
    else:
        gain = 0.0
    scores = tl.dot(q_c, tl.trans(k_c), input_precision=PRECISION)
    index = (tl.cast(batch, tl.int64) * tl.num_programs(0) + n) * H
    for h in range(H):
        v_h, out_h = head_start(v, v_strides, batch, h), head_start(out, out_strides, batch, h)
        decay, total = chunk_decays(decays, batch, h, n, H, tl.num_programs(0), C)
        v_c = load_tile(v_h, v_strides[1], first, end, C, DV, BV, WIDE)
        state = _narrow_state(states, index + h, DK, DV, BK, BV, WIDE)
        o_c = tl.dot(q_c, state, input_precision=PRECISION)
        o_c *= to_the_end(decay, total, False)[:, None]
        weighted = operand(scores * _weights(decay, False, C), v, WIDE)
        o_c = tl.dot(weighted, v_c, acc=o_c, input_precision=PRECISION)
        if SAVE and (NORM or GATE):
            raw_h = head_start(raw, out_strides, batch, h)
            raw_c = rounded(o_c, raw.dtype.element_ty, WIDE)
            store_tile(raw_h, out_strides[1], first, L, raw_c, C, DV, BV)
        if GATE:
            gate_h = head_start(gate, gate_strides, batch, h)
            g_c = load_tile(gate_h, gate_strides[1], first, end, C, DV, BV, WIDE)
        else:
            g_c = 0.0
        o_c = normalise_and_gate(o_c, gain, g_c, EPS, DV, 1, NORM, GATE)
        o_c = rounded(o_c, out.dtype.element_ty, WIDE)
        store_tile(out_h, out_strides[1], first, L, o_c, C, DV, BV)


@triton.jit
def decayed_backward_value(
    q,
    k,
    v,
    dout,
    decays,  # (B, H, N, C)
    lengths,  # (B,)
    states,  # (B, N, H, DK, DV): what each chunk starts from
    dstates,  # (B, N, H, DK, DV): the gradient of what each chunk ends with
    products,  # (SLICES, B, N, H): of that with what is left of what the chunk starts from
    dv,
    ddecays,  # (B, H, N, C)
    q_strides,
    k_strides,
    v_strides,
    dout_strides,
    dv_strides,
    H,
    L,
    SLICES: tl.constexpr,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dv and ddecays for all heads of chunk program_id(0), program_id(1)'s.

    c_i - c_j weighs what j gives to i, with c_i what the state before the chunk gives to i, and
    with T - c_j what j gives to the state behind. Each of these terms is made once, in float32: the
    sums that a token's log_decay takes of them cancel where it has no part. Differences of whole
    outputs, o . do - v . dv, would leave the rounding of both.
    """
    n, batch = tl.program_id(0), tl.program_id(1)
    first = n * C
    end = tl.load(lengths + batch).to(tl.int32) if RAGGED else L
    q_c = load_tile(head_start(q, q_strides, batch, 0), q_strides[1], first, end, C, DK, BK, WIDE)
    k_c = load_tile(head_start(k, k_strides, batch, 0), k_strides[1], first, end, C, DK, BK, WIDE)
    scores = tl.dot(k_c, tl.trans(q_c), input_precision=PRECISION)  # (C, C) as (j, i)
    index = (tl.cast(batch, tl.int64) * tl.num_programs(0) + n) * H
    for h in range(H):
        do_h, v_h = head_start(dout, dout_strides, batch, h), head_start(v, v_strides, batch, h)
        dv_h = head_start(dv, dv_strides, batch, h)
        decay, total = chunk_decays(decays, batch, h, n, H, tl.num_programs(0), C)
        do_c = load_tile(do_h, dout_strides[1], first, end, C, DV, BV, WIDE)
        v_c = load_tile(v_h, v_strides[1], first, end, C, DV, BV, WIDE)
        dstate = _narrow_state(dstates, index + h, DK, DV, BK, BV, WIDE)
        dv_c = tl.dot(k_c, dstate, input_precision=PRECISION)
        dv_c *= to_the_end(decay, total, True)[:, None]
        behind = tl.sum(v_c.to(tl.float32) * dv_c, axis=1)
        weighted = scores * _weights(decay, True, C)
        rounded_weights = operand(weighted, v, WIDE)
        dv_c = tl.dot(rounded_weights, do_c, acc=dv_c, input_precision=PRECISION)
        dv_c = rounded(dv_c, dv.dtype.element_ty, WIDE)
        store_tile(dv_h, dv_strides[1], first, L, dv_c, C, DV, BV)
        state = _narrow_state(states, index + h, DK, DV, BK, BV, WIDE)  # where dstate has been
        before = tl.dot(q_c, state, input_precision=PRECISION)
        before = tl.sum(do_c.to(tl.float32) * before, axis=1) * to_the_end(decay, total, False)
        pairs = weighted * tl.dot(v_c, tl.trans(do_c), input_precision=PRECISION)
        dc = tl.sum(pairs, axis=0) - tl.sum(pairs, axis=1) + before - behind
        last = tl.sum(behind, axis=0)
        for each in tl.static_range(SLICES):
            chunk = (each * tl.num_programs(1) + batch) * tl.num_programs(0) + n
            last += tl.load(products + tl.cast(chunk, tl.int64) * H + h)
        dc += tl.where(tl.arange(0, C) == C - 1, last, 0.0)
        place = ((tl.cast(batch, tl.int64) * H + h) * tl.num_programs(0) + n) * C
        tl.store(ddecays + place + tl.arange(0, C), dc)


@triton.jit
def _shared_gradient(
    a,
    b,
    other,
    out,
    a_strides,
    b_strides,
    other_strides,
    out_strides,
    states,
    decays,
    batch,
    n,
    end,
    H,
    L,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    BACK: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """out = the sum over heads of (a b^T * weights) other + left * (a state^T); dk's, if BACK."""
    first = n * C
    out_c = tl.zeros((C, BK), tl.float32)
    scores = tl.zeros((C, C), tl.float32)
    index = (tl.cast(batch, tl.int64) * tl.num_programs(0) + n) * H
    for h in range(H):
        a_h, b_h = head_start(a, a_strides, batch, h), head_start(b, b_strides, batch, h)
        state = _narrow_state(states, index + h, DK, DV, BK, BV, WIDE)  # first: the largest
        a_c = load_tile(a_h, a_strides[1], first, end, C, DV, BV, WIDE)
        b_c = load_tile(b_h, b_strides[1], first, end, C, DV, BV, WIDE)
        decay, total = chunk_decays(decays, batch, h, n, H, tl.num_programs(0), C)
        left = to_the_end(decay, total, BACK)
        decayed = operand(a_c * left[:, None], a, WIDE)
        out_c = tl.dot(decayed, tl.trans(state), acc=out_c, input_precision=PRECISION)
        inner = tl.dot(a_c, tl.trans(b_c), input_precision=PRECISION)
        scores += inner * _weights(decay, BACK, C)
    other = head_start(other, other_strides, batch, 0)
    other_c = load_tile(other, other_strides[1], first, end, C, DK, BK, WIDE)
    scores = operand(scores, a, WIDE)
    out_c = tl.dot(scores, other_c, acc=out_c, input_precision=PRECISION)
    out_c = rounded(out_c, out.dtype.element_ty, WIDE)
    store_tile(head_start(out, out_strides, batch, 0), out_strides[1], first, L, out_c, C, DK, BK)


@triton.jit
def decayed_backward_query_key(
    q,
    k,
    v,
    dout,
    decays,  # (B, H, N, C)
    lengths,  # (B,)
    states,  # (B, N, H, DK, DV): what each chunk starts from
    dstates,  # (B, N, H, DK, DV): the gradient of what each chunk ends with
    dq,
    dk,
    q_strides,
    k_strides,
    v_strides,
    dout_strides,
    dq_strides,  # dk's as well
    H,
    L,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dq or dk (program_id(2)) of chunk program_id(0) of sequence program_id(1)."""
    n, batch = tl.program_id(0), tl.program_id(1)
    end = tl.load(lengths + batch).to(tl.int32) if RAGGED else L
    if tl.program_id(2) == 0:
        _shared_gradient(
            dout, v, k, dq, dout_strides, v_strides, k_strides, dq_strides, states, decays,
            batch, n, end, H, L, DK, DV, BK, BV, C, False, WIDE, PRECISION,
        )  # fmt: skip
    else:
        _shared_gradient(
            v, dout, q, dk, v_strides, dout_strides, q_strides, dq_strides, dstates, decays,
            batch, n, end, H, L, DK, DV, BK, BV, C, True, WIDE, PRECISION,
        )  # fmt: skip
