"""Triton kernels that sum states over a sequence in two deterministic stages.

First every part of a sequence sums its own b^T c, all parts side by side; then the few sums of a
head are added up in order. No atomics: the result does not depend on which program runs first.
"""

import triton
import triton.language as tl

from chela.kernels.linear_attention.tile_kernels import head_start, load_tile, store_state


@triton.jit
def part_states(
    b,
    c,
    lengths,  # (B,)
    sums,  # (B * H, parts, DB, DC)
    b_strides,
    c_strides,
    H,
    L,
    part_tokens,
    DB: tl.constexpr,
    DC: tl.constexpr,
    BB: tl.constexpr,
    BC: tl.constexpr,
    C: tl.constexpr,
    RAGGED: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """sums = sum of b^T c over the tokens of part program_id(1) of head program_id(0)."""
    bh, part = tl.program_id(0), tl.program_id(1)
    batch, h = bh // H, bh % H
    end = tl.load(lengths + batch).to(tl.int32) if RAGGED else L
    b, c = head_start(b, b_strides, batch, h), head_start(c, c_strides, batch, h)
    state = tl.zeros((BB, BC), tl.float32)
    begin = part * part_tokens
    for first in range(begin, tl.minimum(begin + part_tokens, L), C):
        b_c = load_tile(b, b_strides[1], first, end, C, DB, BB, WIDE)  # (C, BB)
        c_c = load_tile(c, c_strides[1], first, end, C, DC, BC, WIDE)  # (C, BC)
        state = tl.dot(tl.trans(b_c), c_c, acc=state, input_precision=PRECISION)
    store_state(sums, bh * tl.num_programs(1) + part, state, DB, DC, BB, BC)


@triton.jit
def running_sums(
    sums,  # (B * H / HEADS, parts, HEADS * DK, HEADS * DV)
    initial,  # (B * H, DK, DV)
    running,  # (B * H, parts, DK, DV)
    parts,
    HEADS: tl.constexpr,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BLOCK: tl.constexpr,
    INITIAL: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """running[p] = initial + the sums of all parts before p (after p, if REVERSE).

    Of HEADS heads packed into one, each takes its own block of the sums.
    """
    SIZE: tl.constexpr = DK * DV
    bh = tl.cast(tl.program_id(0), tl.int64)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = element < SIZE
    if INITIAL:
        total = tl.load(initial + bh * SIZE + element, mask=mask)
    else:
        total = tl.zeros((BLOCK,), tl.float32)
    for step in range(parts):
        part = parts - 1 - step if REVERSE else step
        tl.store(running + (bh * parts + part) * SIZE + element, total, mask=mask)
        row = bh % HEADS * DK + element // DV
        column = bh % HEADS * DV + element % DV
        matrix = sums + (bh // HEADS * parts + part) * (HEADS * HEADS * SIZE)
        total += tl.load(matrix + row * (HEADS * DV) + column, mask=mask)


@triton.jit
def mean_state(
    sums,  # (B * H, parts, DK, DV)
    lengths,  # (B,)
    mean,  # (B * H, DK, DV)
    H,
    L,
    parts,
    HEADS: tl.constexpr,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BLOCK: tl.constexpr,
    RAGGED: tl.constexpr,
):
    """mean = the sum over parts, divided by the sequence's true length (by 1 where it is 0).

    Of HEADS heads packed into one, what lies outside a head's own block becomes zero.
    """
    SIZE: tl.constexpr = DK * DV
    bh = tl.cast(tl.program_id(0), tl.int64)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = element < SIZE
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(parts):
        total += tl.load(sums + (bh * parts + part) * SIZE + element, mask=mask)
    length = tl.load(lengths + bh // H).to(tl.float32) if RAGGED else tl.cast(L, tl.float32)
    row_head = element // DV // (DK // HEADS)
    column_head = element % DV // (DV // HEADS)
    total = tl.where(row_head == column_head, total / tl.maximum(length, 1.0), 0.0)
    tl.store(mean + bh * SIZE + element, total, mask=mask)
