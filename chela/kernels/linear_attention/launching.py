"""What the launches of the Triton kernels share: sizes, strides, precision."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from chela.kernels.launching import INTERPRETED, padded
from chela.kernels.linear_attention import tuning

EPS = 1e-6  # of the norm per head; as the model's RMSNorm
BLOCK = 512  # numbers of a state per program where states are summed elementwise


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
