"""What the operators over the Triton kernels share: sizes, strides, sums of states, gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chela.kernels.launching import INTERPRETED, no_second_order, on, padded
from chela.kernels.linear_attention import tuning
from chela.kernels.linear_attention.state_kernels import part_states

EPS = 1e-6  # of the norm per head; as the model's RMSNorm
BLOCK = 512  # numbers of a state per program where states are summed elementwise


def sizes(k: Tensor, v: Tensor) -> dict[str, int]:
    """Head dims and their padded forms: powers of two, at least 16 for tl.dot."""
    dk, dv = k.shape[-1], v.shape[-1]
    return {"DK": dk, "DV": dv, "BK": padded(dk), "BV": padded(dv)}


def precision(x: Tensor) -> dict[str, Any]:
    """Widening for the interpreter, and how products of float32 tiles round."""
    return {"WIDE": INTERPRETED, "PRECISION": "ieee" if tuning.exact(x) else "tf32"}


def strides(*given: Tensor | None) -> list[tuple[int, ...] | None]:
    """Of batch, token and head, in elements; the channels of a head are contiguous."""
    return [None if x is None else x.stride()[:3] for x in given]


def rows(x: Tensor) -> Tensor:
    """``x`` (B, L, H, d) with contiguous channels: itself, or a copy where they are not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def outputs(
    k: Tensor, v: Tensor, norm_weight: Tensor | None, gate: Tensor | None, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for out, the final state, and out before its epilogue: empty unless to be saved."""
    batch, _, heads, dv = v.shape
    final = v.new_empty((batch, heads, k.shape[-1], dv), dtype=torch.float32)
    raw = save and (norm_weight is not None or gate is not None)
    return v.new_empty(v.shape), final, v.new_empty(v.shape if raw else (0,))


def register(forward: Any, backward: Any) -> None:
    """Make ``backward`` the gradient of ``forward``; it has none of its own.

    Args:
        forward: the operator, of tensors or None, then the lengths, and whether to save what its
            gradient reads: the last two of its results.
        backward: the operator, of the gradients of the other results, of those tensors, the
            lengths and the two results. It returns a gradient for each tensor, whatever for None.
    """

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)  # no zeros for the two outputs nobody differentiates
        ctx.save_for_backward(*inputs[:-1], *output[-2:])

    def gradients(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        dout, *others = upstream[:-2]
        if dout is None:
            dout = torch.zeros_like(saved[2])  # v is third
        found = zip(saved, backward(dout, *others, *saved), strict=False)
        return *(None if x is None else g.to(x.dtype) for x, g in found), None, None

    forward.register_autograd(gradients, setup_context=save)
    backward.register_autograd(no_second_order)


def part_sums(b: Tensor, c: Tensor, lengths: Tensor | None, parts: int, tokens: int) -> Tensor:
    """The sums of b^T c over each part of so many tokens, (B * H, parts, db, dc)."""
    batch, length, heads, _ = c.shape
    size = sizes(b, c)
    tiles = tuning.stream_tiles(c, max(size["BK"], size["BV"]))
    sums = c.new_empty((batch * heads, parts, size["DK"], size["DV"]), dtype=torch.float32)
    with on(c):
        part_states[(batch * heads, parts)](
            b, c, lengths, sums, *strides(b, c), heads, length, tokens,
            DB=size["DK"], DC=size["DV"], BB=size["BK"], BC=size["BV"], C=tiles.chunk,
            RAGGED=lengths is not None, **precision(c), **tiles.options,
        )  # fmt: skip
    return sums


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
