"""The epilogue out = o / rms(o) * weight * silu(gate) as passes of its own."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from chela.kernels.launching import INTERPRETED, on, processors, register
from chela.kernels.linear_attention import epilogue_kernels as kernels
from chela.kernels.linear_attention.launching import EPS

MAX_WIDTH = 2048  # of a head: a program keeps its rows in registers
PER_THREAD = 4  # numbers of each block of columns


def blocks(width: int) -> tuple[int, int]:
    """C and N for heads of ``width``: of the least padding, and of those the fewest blocks.

    A width such as 320 or 768 wastes no thread so, which one power of two would.
    """
    cuts = [(c, -(-width // c)) for c in (256, 128, 64, 32, 16)]
    return min((cut for cut in cuts if cut[1] <= 8), key=lambda cut: cut[0] * cut[1])


def _cut(o: Tensor, together: int, warps: int) -> tuple[int, dict[str, Any]]:
    """How many programs share the rows, and what a kernel is compiled for.

    A program takes ROWS heads of N blocks of C columns at a time, and ``together`` programs are
    started for each multiprocessor: both were swept on an H200 over heads of 192, 320 and 768.
    """
    width = o.shape[-1]
    columns, number = blocks(width)
    rows = max(1, PER_THREAD * 32 * warps // columns)
    programs = min(triton.cdiv(o.numel() // width, rows), together * processors(o))
    constants = {"D": width, "C": columns, "N": number, "ROWS": rows, "WIDE": INTERPRETED}
    return programs, {**constants, "num_warps": warps}


def gradients(
    dout: Tensor,
    o: Tensor,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of o (B, L, H, dv), norm_weight (dv,) and gate like o; empty of what is not given.

    With neither there is no epilogue: that of o is ``dout``.
    """
    dweight, dgate = empty_gradients(o, norm_weight, gate)
    if norm_weight is None and gate is None:
        return dout, dweight, dgate
    do = o.new_empty(o.shape)
    _, length, heads, dv = o.shape
    programs, constants = _cut(o, max(3, 16 // blocks(dv)[1]), warps=4)
    shares = o.new_empty((programs, dv), dtype=torch.float32)
    with on(o):
        kernels.epilogue_backward[(programs,)](
            dout.contiguous(), o.contiguous(), None if gate is None else gate.contiguous(),
            norm_weight, lengths, do, dgate, shares, heads, length, o.numel() // dv,
            EPS=EPS, RAGGED=lengths is not None, NORM=norm_weight is not None,
            GATE=gate is not None, **constants,
        )  # fmt: skip
    return do, dweight if norm_weight is None else shares.sum(0).to(dweight.dtype), dgate


def empty_gradients(
    o: Tensor, norm_weight: Tensor | None, gate: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Tensors like the gradients of norm weight and gate; empty where there is none."""
    return (
        o.new_empty(0) if norm_weight is None else norm_weight.new_empty(norm_weight.shape),
        o.new_empty(0) if gate is None else gate.new_empty(gate.shape),
    )


@torch.library.custom_op("chela::attention_epilogue", mutates_args=())
def attention_epilogue(
    o: Tensor, norm_weight: Tensor | None, gate: Tensor | None, lengths: Tensor | None
) -> Tensor:
    """out like o (B, L, H, dv): ``eager.finish``, and zero at padded positions."""
    out = o.new_empty(o.shape)
    _, length, heads, dv = o.shape
    programs, constants = _cut(o, 32, warps=8)
    with on(o):
        kernels.epilogue_forward[(programs,)](
            o.contiguous(), None if gate is None else gate.contiguous(), norm_weight, lengths, out,
            heads, length, o.numel() // dv, EPS=EPS, RAGGED=lengths is not None,
            NORM=norm_weight is not None, GATE=gate is not None, **constants,
        )  # fmt: skip
    return out


@attention_epilogue.register_fake
def _(o: Tensor, *rest: Any) -> Tensor:
    return o.new_empty(o.shape)


@torch.library.custom_op("chela::attention_epilogue_backward", mutates_args=())
def attention_epilogue_backward(
    dout: Tensor,
    o: Tensor,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``gradients``."""
    return gradients(dout, o, norm_weight, gate, lengths)


@attention_epilogue_backward.register_fake
def _(dout: Tensor, o: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return o.new_empty(o.shape), *empty_gradients(o, *rest[:2])


register(attention_epilogue, attention_epilogue_backward)
