"""Triton kernels of causal linear attention that forgets: a scan of states, then chunk by chunk.

The heads of v share one q and k. ``decayed_states`` walks along a sequence, a head and some rows of
its state in a program, and leaves behind what each chunk starts from; backwards, the gradient of
what each chunk ends with. With these no chunk waits for another: a program has all heads of one
chunk, so that what they share is loaded once, and the gradients of q and k are summed up in
registers. With (q, k, v, S) replaced by (k, q, do, dS) and time reversed, the output's formula is
that of dv, and with (do, v, S, k) by (v, do, dS, q) that of dq is that of dk.

``decays`` (B, H, N, C) are the running sums c of log_decay within each chunk, to which padding adds
nothing; T is a chunk's last. Only differences at most 0 are raised to a power.
"""

import triton
import triton.language as tl

from chela.kernels.linear_attention.tile_kernels import (
    head_start,
    load_state,
    load_tile,
    normalise_and_gate,
    state_pointers,
    store_tile,
)
from chela.kernels.tokens.tiles import rounded


@triton.jit
def _decays(decays, b, h, n, H, chunks, C: tl.constexpr):
    """c (C,) and T of chunk n of head h."""
    start = decays + ((tl.cast(b, tl.int64) * H + h) * chunks + n) * C
    return tl.load(start + tl.arange(0, C)), tl.load(start + C - 1)


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
def _to_the_end(c, total, BACK: tl.constexpr):
    """What is left over the way to the state before a chunk; going ``BACK``, to the one behind."""
    return tl.exp(total - c) if BACK else tl.exp(c)


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
def _load_rows(states, index, DK: tl.constexpr, DV: tl.constexpr, rows, columns):
    """Some rows of state ``index``, in float32."""
    pointers, mask = state_pointers(states, index, DK, DV, rows, columns)
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store_rows(
    states, index, x, DK: tl.constexpr, DV: tl.constexpr, rows, columns, WIDE: tl.constexpr
):
    """Write some rows of state ``index``, rounded to the dtype of ``states``."""
    pointers, mask = state_pointers(states, index, DK, DV, rows, columns)
    tl.store(pointers, rounded(x, states.dtype.element_ty, WIDE), mask=mask)


@triton.jit
def decayed_states(
    b,  # k; q, if BACK
    c,  # v; the gradient of the output, if BACK
    decays,  # (B, H, N, C)
    lengths,  # (B,)
    initial,  # (B * H, parts, DK, DV): the state each part starts from
    saved,  # (B, N + 1, H, DK, DV): the states, of which BACK's are the gradients
    states,  # (B, N + 1, H, DK, DV): where they are written
    ends,  # (B * H, parts, DK, DV)
    products,  # (slices, B, N, H): if BACK, of each state behind a chunk with its gradient
    b_strides,
    c_strides,
    H,
    L,
    part_tokens,
    DK: tl.constexpr,
    DV: tl.constexpr,
    DB: tl.constexpr,  # rows of this program's slice of a state
    BB: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    RAGGED: tl.constexpr,
    INITIAL: tl.constexpr,
    BACK: tl.constexpr,
    STORE: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """states[n] before chunk n (behind chunk n, if BACK), and ends behind each part.

    Of part program_id(1) of head program_id(0), the rows of slice program_id(2).
    """
    bh, part, slice = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    batch, h = bh // H, bh % H
    end = tl.load(lengths + batch).to(tl.int32) if RAGGED else L
    b, c = head_start(b, b_strides, batch, 0) + slice * BB, head_start(c, c_strides, batch, h)
    rows, columns = slice * BB + tl.arange(0, BB)[:, None], tl.arange(0, BV)[None, :]
    own = bh * tl.num_programs(1) + part
    if INITIAL:
        state = _load_rows(initial, own, DK, DV, rows, columns)
    else:
        state = tl.zeros((BB, BV), tl.float32)
    begin = part * part_tokens
    stop = tl.minimum(begin + part_tokens, L)
    chunks, places = tl.cdiv(stop - begin, C), tl.cdiv(L, C) + 1
    for chunk in range(chunks):
        n = begin // C + (chunks - 1 - chunk if BACK else chunk)
        index = (tl.cast(batch, tl.int64) * places + n) * H + h
        if STORE:
            _store_rows(states, index, state, DK, DV, rows, columns, WIDE)
            if BACK:
                behind = _load_rows(saved, index + H, DK, DV, rows, columns)
                place = ((slice * (tl.num_programs(0) // H) + batch) * (places - 1) + n) * H + h
                tl.store(products + place, tl.sum(state * behind))
        b_c = load_tile(b, b_strides[1], n * C, end, C, DB, BB, WIDE)  # (C, BB)
        c_c = load_tile(c, c_strides[1], n * C, end, C, DV, BV, WIDE)  # (C, BV)
        decay, total = _decays(decays, batch, h, n, H, places - 1, C)
        left = _to_the_end(decay, total, not BACK)
        c_c = (c_c * left[:, None]).to(b_c.dtype)
        state = tl.dot(tl.trans(b_c), c_c, acc=state * tl.exp(total), input_precision=PRECISION)
    _store_rows(ends, own, state, DK, DV, rows, columns, WIDE)
    if STORE and not BACK:  # noqa: SIM102
        # one condition is decided by the compiler, the other by the program
        if part == tl.num_programs(1) - 1:
            last = (tl.cast(batch, tl.int64) * places + places - 1) * H + h
            _store_rows(states, last, state, DK, DV, rows, columns, WIDE)


@triton.jit
def _read(
    scores,
    a_c,
    c_c,
    state,
    decay,
    total,
    BACK: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The output of a head's chunk, (scores * weights) c + left * (a state); of dv, if BACK."""
    left = _to_the_end(decay, total, BACK)
    out = tl.dot(a_c, state, input_precision=PRECISION) * left[:, None]
    scores = scores * _weights(decay, BACK, C)
    return tl.dot(scores.to(c_c.dtype), c_c, acc=out, input_precision=PRECISION)


@triton.jit
def decayed_output(
    q,
    k,
    v,
    decays,  # (B, H, N, C)
    gate,
    weight,  # (DV,)
    lengths,  # (B,)
    states,  # (B, N + 1, H, DK, DV): what each chunk starts from
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
    index = (tl.cast(batch, tl.int64) * (tl.num_programs(0) + 1) + n) * H
    for h in range(H):
        v_h, out_h = head_start(v, v_strides, batch, h), head_start(out, out_strides, batch, h)
        v_c = load_tile(v_h, v_strides[1], first, end, C, DV, BV, WIDE)
        state = _narrow_state(states, index + h, DK, DV, BK, BV, WIDE)
        decay, total = _decays(decays, batch, h, n, H, tl.num_programs(0), C)
        o_c = _read(scores, q_c, v_c, state, decay, total, False, C, PRECISION)
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
    o,
    dout,
    decays,  # (B, H, N, C)
    lengths,  # (B,)
    dstates,  # (B, N + 1, H, DK, DV): the gradient of what each chunk ends with
    products,  # (SLICES, B, N, H): of that with what the chunk ends with
    dv,
    ddecays,  # (B, H, N, C)
    q_strides,
    k_strides,
    v_strides,
    o_strides,
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

    A token's c has the gradient o . do - v . dv, of its output's terms and of those that it is in.
    A chunk's last moves all that comes later as much as it moves the state behind the chunk, whose
    product with its gradient is known: a sum over all later tokens would be the difference of large
    numbers.
    """
    n, batch = tl.program_id(0), tl.program_id(1)
    first = n * C
    end = tl.load(lengths + batch).to(tl.int32) if RAGGED else L
    q_c = load_tile(head_start(q, q_strides, batch, 0), q_strides[1], first, end, C, DK, BK, WIDE)
    k_c = load_tile(head_start(k, k_strides, batch, 0), k_strides[1], first, end, C, DK, BK, WIDE)
    scores = tl.dot(k_c, tl.trans(q_c), input_precision=PRECISION)
    tokens = first + tl.arange(0, C)
    index = (tl.cast(batch, tl.int64) * (tl.num_programs(0) + 1) + n) * H
    for h in range(H):
        do_h, v_h = head_start(dout, dout_strides, batch, h), head_start(v, v_strides, batch, h)
        o_h, dv_h = head_start(o, o_strides, batch, h), head_start(dv, dv_strides, batch, h)
        do_c = load_tile(do_h, dout_strides[1], first, end, C, DV, BV, WIDE)
        dstate = _narrow_state(dstates, index + h, DK, DV, BK, BV, WIDE)
        decay, total = _decays(decays, batch, h, n, H, tl.num_programs(0), C)
        dv_c = _read(scores, k_c, do_c, dstate, decay, total, True, C, PRECISION)
        dv_c = tl.where((tokens < end)[:, None], dv_c, 0.0)
        store_tile(dv_h, dv_strides[1], first, L, dv_c, C, DV, BV)
        o_c = load_tile(o_h, o_strides[1], first, end, C, DV, BV, True)
        v_c = load_tile(v_h, v_strides[1], first, end, C, DV, BV, True)
        dc = tl.sum(o_c * do_c.to(tl.float32) - v_c * dv_c, axis=1)
        later = 0.0
        for each in tl.static_range(SLICES):
            chunk = (each * tl.num_programs(1) + batch) * tl.num_programs(0) + n
            later += tl.load(products + tl.cast(chunk, tl.int64) * H + h)
        dc += tl.where(tl.arange(0, C) == C - 1, later, 0.0)
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
    index = (tl.cast(batch, tl.int64) * (tl.num_programs(0) + 1) + n) * H
    for h in range(H):
        a_h, b_h = head_start(a, a_strides, batch, h), head_start(b, b_strides, batch, h)
        a_c = load_tile(a_h, a_strides[1], first, end, C, DV, BV, WIDE)
        b_c = load_tile(b_h, b_strides[1], first, end, C, DV, BV, WIDE)
        state = _narrow_state(states, index + h, DK, DV, BK, BV, WIDE)
        decay, total = _decays(decays, batch, h, n, H, tl.num_programs(0), C)
        inner = tl.dot(a_c, tl.trans(b_c), input_precision=PRECISION)
        scores += inner * _weights(decay, BACK, C)
        a_c = (a_c * _to_the_end(decay, total, BACK)[:, None]).to(a_c.dtype)
        out_c = tl.dot(a_c, tl.trans(state), acc=out_c, input_precision=PRECISION)
    other = head_start(other, other_strides, batch, 0)
    other_c = load_tile(other, other_strides[1], first, end, C, DK, BK, WIDE)
    out_c = tl.dot(scores.to(other_c.dtype), other_c, acc=out_c, input_precision=PRECISION)
    store_tile(head_start(out, out_strides, batch, 0), out_strides[1], first, L, out_c, C, DK, BK)


@triton.jit
def decayed_backward_query_key(
    q,
    k,
    v,
    dout,
    decays,  # (B, H, N, C)
    lengths,  # (B,)
    states,  # (B, N + 1, H, DK, DV): what each chunk starts from
    dstates,  # (B, N + 1, H, DK, DV): the gradient of what each chunk ends with
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
