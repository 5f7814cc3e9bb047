"""Triton kernel of the epilogue's gradient: out = o / rms(o) * weight * silu(gate), token by token.

The forward epilogue is fused into the attention kernels; backward it is one pass of its own, since
the attention's gradient kernels read the gradient of o twice.
"""

import triton
import triton.language as tl


@triton.jit
def epilogue_backward(
    dout,
    o,
    gate,
    weight,  # (DV,)
    lengths,  # (B,)
    do,
    dgate,
    dweights,  # (programs, DV): each program's share of the weight's gradient
    H,
    L,
    num_rows,  # B * L * H; all tensors are contiguous
    EPS: tl.constexpr,
    DV: tl.constexpr,
    BV: tl.constexpr,
    ROWS: tl.constexpr,
    RAGGED: tl.constexpr,
    NORM: tl.constexpr,
    GATE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """do, dgate and dweights from the gradient of out."""
    columns = tl.arange(0, BV)
    if NORM:
        gain = tl.load(weight + columns, mask=columns < DV, other=0.0).to(tl.float32)
        dgain = tl.zeros((BV,), tl.float32)
    stride = tl.num_programs(0) * ROWS
    for first in range(tl.program_id(0) * ROWS, num_rows, stride):
        row = first + tl.arange(0, ROWS)
        real = row < num_rows
        if RAGGED:
            length = tl.load(lengths + row // (L * H), mask=real, other=0)
            real = real & (row // H % L < length)
        inside = (row < num_rows)[:, None] & (columns < DV)[None, :]
        mask = real[:, None] & (columns < DV)[None, :]
        place = tl.cast(row, tl.int64)[:, None] * DV + columns[None, :]
        dy = tl.load(dout + place, mask=mask, other=0.0).to(tl.float32)
        y = tl.load(o + place, mask=mask, other=0.0).to(tl.float32)
        normal = y
        if NORM:
            scale = tl.rsqrt(tl.sum(y * y, axis=1) / DV + EPS)[:, None]
            y = y * scale
            normal = y * gain[None, :]
        if GATE:
            g = tl.load(gate + place, mask=mask, other=0.0).to(tl.float32)
            sigmoid = tl.sigmoid(g)
            dg = dy * normal * sigmoid * (1 + g * (1 - sigmoid))
            tl.store(dgate + place, dg.to(dgate.dtype.element_ty), mask=inside)
            dy = dy * g * sigmoid
        if NORM:
            dgain += tl.sum(dy * y, axis=0)
            dy = dy * gain[None, :]
            dy = scale * (dy - y * (tl.sum(dy * y, axis=1) / DV)[:, None])
        tl.store(do + place, dy.to(do.dtype.element_ty), mask=inside)
    if NORM:
        tl.store(dweights + tl.program_id(0) * DV + columns, dgain, mask=columns < DV)
