"""Triton kernel of the scan of states of causal linear attention that forgets.

It walks along a sequence, a head and some rows of its state in a program, and leaves behind what
each chunk starts from; backwards, the gradient of what each chunk ends with. ``decayed_kernels``
has the rest, and says what ``decays`` are.
"""

import triton
import triton.language as tl

from chela.kernels.linear_attention.tile_kernels import head_start, load_tile, state_pointers
from chela.kernels.tokens.tiles import operand, rounded


@triton.jit
def chunk_decays(decays, b, h, n, H, chunks, C: tl.constexpr):
    """c (C,) and T of chunk n of head h."""
    start = decays + ((tl.cast(b, tl.int64) * H + h) * chunks + n) * C
    return tl.load(start + tl.arange(0, C)), tl.load(start + C - 1)


@triton.jit
def to_the_end(c, total, BACK: tl.constexpr):
    """What is left over the way to the state before a chunk; going ``BACK``, to the one behind."""
    return tl.exp(total - c) if BACK else tl.exp(c)


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
    saved,  # (B, N, H, DK, DV): what each chunk starts from, if BACK
    states,  # (B, N, H, DK, DV): where they are written
    ends,  # (B * H, parts, DK, DV)
    products,  # (slices, B, N, H): if BACK, of what is left of saved behind a chunk with states
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
    chunks, places = tl.cdiv(stop - begin, C), tl.cdiv(L, C)
    for chunk in range(chunks):
        n = begin // C + (chunks - 1 - chunk if BACK else chunk)
        index = (tl.cast(batch, tl.int64) * places + n) * H + h
        decay, total = chunk_decays(decays, batch, h, n, H, places, C)
        b_c = load_tile(b, b_strides[1], n * C, end, C, DB, BB, WIDE)  # (C, BB)
        c_c = load_tile(c, c_strides[1], n * C, end, C, DV, BV, WIDE)  # (C, BV)
        if STORE:  # behind the loads, which would wait for it
            if BACK:
                before = _load_rows(saved, index, DK, DV, rows, columns) * tl.exp(total)
                place = ((slice * (tl.num_programs(0) // H) + batch) * places + n) * H + h
                tl.store(products + place, tl.sum(state * before))
            _store_rows(states, index, state, DK, DV, rows, columns, WIDE)
        left = to_the_end(decay, total, not BACK)
        c_c = operand(c_c * left[:, None], c, WIDE)
        state = tl.dot(tl.trans(b_c), c_c, acc=state * tl.exp(total), input_precision=PRECISION)
    _store_rows(ends, own, state, DK, DV, rows, columns, WIDE)
