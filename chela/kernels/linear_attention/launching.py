"""What the launches of the Triton kernels share: sizes, strides, precision, the epilogue."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from chela.kernels import launching
from chela.kernels.launching import INTERPRETED, on, padded
from chela.kernels.linear_attention import tuning
from chela.kernels.linear_attention.epilogue_kernels import epilogue_backward

EPS = 1e-6  # of the norm per head; as the model's RMSNorm
BLOCK = 512  # numbers of a state per program where states are summed elementwise

no_second_order = launching.no_second_order(
    "linear attention's Triton kernels have no second derivative; "
    "use implementation='torch' (kernels=torch) where one is needed"
)


def sizes(k: Tensor, v: Tensor) -> dict[str, int]:
    """Head dims and their padded forms: powers of two, at least 16 for tl.dot."""
    dk, dv = k.shape[-1], v.shape[-1]
    return {
        "DK": dk,
        "DV": dv,
        "BK": padded(dk),
        "BV": padded(dv),
    }


def precision(x: Tensor) -> dict[str, Any]:
    """Widening for the interpreter, and how products of float32 tiles round."""
    return {"WIDE": INTERPRETED, "PRECISION": "ieee" if tuning.exact(x) else "tf32"}


def strides(x: Tensor) -> tuple[int, int, int]:
    """Of batch, token and head, in elements; the channels of a head are contiguous."""
    return x.stride(0), x.stride(1), x.stride(2)


def rows(x: Tensor) -> Tensor:
    """``x`` (B, L, H, d) with contiguous channels: itself, or a copy where they are not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def heads_side_by_side(k: Tensor, v: Tensor) -> int:
    """How many heads the bidirectional kernels take as one: up to 64 channels, 128 bytes a row."""
    heads, dk, dv = k.shape[2], k.shape[3], v.shape[3]
    together = 1
    while 2 * together * max(dk, dv) <= 64 and heads % (2 * together) == 0:
        together *= 2
    whole = dk & (dk - 1) == 0 and dv & (dv - 1) == 0  # no padding between heads
    return together if whole else 1


def packed(x: Tensor, together: int) -> Tensor:
    """``x`` (B, L, H, d) as (B, L, H / together, together * d); a copy where it must be."""
    batch, length, heads, d = x.shape
    if x.stride(-1) != 1 or (together > 1 and x.stride(2) != d):
        x = x.contiguous()
    return x.view(batch, length, heads // together, together * d) if together > 1 else x


def epilogue_gradients(
    v: Tensor, norm_weight: Tensor | None, gate: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Tensors like the gradients of norm weight and gate; empty where there is none."""
    dweight = v.new_empty(0) if norm_weight is None else torch.empty_like(norm_weight)
    dgate = v.new_empty(0) if gate is None else gate.new_empty(gate.shape)
    return dweight, dgate


def finish_backward(
    dout: Tensor,
    o: Tensor,
    gate: Tensor | None,
    norm_weight: Tensor | None,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The epilogue's gradients of o and gate (B, L, H, dv) and norm_weight (dv,).

    Those that do not exist come back empty.
    """
    dout, gate = dout.contiguous(), None if gate is None else gate.contiguous()
    batch, length, heads, dv = o.shape
    num_rows = batch * length * heads
    do = torch.empty_like(o)
    dgate = o.new_empty(0) if gate is None else gate.new_empty(gate.shape)
    width = padded(dv)
    block = 4096 // width  # 32 numbers of each tensor per thread: wide loads, few registers
    programs = min(triton.cdiv(num_rows, block), 2048)
    shares = o.new_empty((programs, dv), dtype=torch.float32)
    with on(o):
        epilogue_backward[(programs,)](
            dout, o, gate, norm_weight, lengths, do, dgate, shares, heads, length, num_rows,
            EPS=EPS, DV=dv, BV=width, ROWS=block, RAGGED=lengths is not None,
            NORM=norm_weight is not None, GATE=gate is not None, WIDE=INTERPRETED, num_warps=4,
        )  # fmt: skip
    dweight = o.new_empty(0) if norm_weight is None else shares.sum(0).to(norm_weight.dtype)
    return do, dgate, dweight
