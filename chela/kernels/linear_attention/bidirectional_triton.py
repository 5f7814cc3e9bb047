"""Bidirectional linear attention as PyTorch operators over the Triton kernels."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from chela.kernels.launching import on
from chela.kernels.linear_attention import epilogue, launching, tuning
from chela.kernels.linear_attention.bidirectional_kernels import (
    bidirectional_backward_key,
    bidirectional_backward_query,
    bidirectional_output,
)
from chela.kernels.linear_attention.launching import packed, strides
from chela.kernels.linear_attention.state_kernels import mean_state


@torch.library.custom_op("chela::bidirectional_attention", mutates_args=())
def bidirectional_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    lengths: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """out, and for the gradient the raw output (else empty) and the state."""
    out, raw, state = _outputs(q, k, v, norm_weight, gate, lengths, save)
    together = launching.heads_side_by_side(k, v)
    q, k, v, wide_out = (packed(x, together) for x in (q, k, v, out))
    gate = None if gate is None else packed(gate, together)
    grid, tokens, options = _cut(k, v, lengths)
    length, heads = v.shape[1:3]
    with on(v):
        sums = launching.part_sums(k, v, lengths, grid[1], tokens)
        _mean(sums, lengths, state, length, together)
        bidirectional_output[grid](
            q, gate, norm_weight, lengths, state, wide_out, raw, *strides(q, gate, wide_out),
            heads, length, tokens, EPS=launching.EPS, HEADS=together,
            NORM=norm_weight is not None, GATE=gate is not None, SAVE=save, **options,
        )  # fmt: skip
    return out, raw, state


@torch.library.custom_op("chela::bidirectional_attention_backward", mutates_args=())
def bidirectional_attention_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    lengths: Tensor | None,
    raw: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v, norm weight and gate; the last two may be empty."""
    dout, dweight, dgate = epilogue.gradients(dout, raw, norm_weight, gate, lengths)
    gradients = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    together = launching.heads_side_by_side(k, v)
    q, k, v, dout = (packed(x, together) for x in (q, k, v, dout))
    dq, dk, dv = (packed(x, together) for x in gradients)
    grid, tokens, options = _cut(k, v, lengths)
    sums = state.new_empty((*grid, *state.shape[2:]))
    dstate = torch.empty_like(state)
    length, heads = v.shape[1:3]
    with on(v):
        bidirectional_backward_query[grid](
            q, dout, lengths, state, dq, sums, *strides(q, dout, dq), heads, length, tokens,
            **options,
        )  # fmt: skip
        _mean(sums, lengths, dstate, length, together)
        bidirectional_backward_key[grid](
            k, v, lengths, dstate, dk, dv, *strides(k, v, dk, dv), heads, length, tokens,
            **options,
        )  # fmt: skip
    return *gradients, dweight, dgate


@bidirectional_attention_backward.register_fake
def _(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    gradients = (x.new_empty(x.shape) for x in (q, k, v))
    return *gradients, *epilogue.empty_gradients(v, *rest[:2])


launching.register(bidirectional_attention, bidirectional_attention_backward)


@bidirectional_attention.register_fake
def _outputs(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for out, the raw output and the state."""
    norm_weight, gate, _, save = rest
    out, state, raw = launching.outputs(k, v, norm_weight, gate, save)
    together = launching.heads_side_by_side(k, v)
    batch, heads, dk, dv = state.shape
    return out, raw, state.new_empty((batch, heads // together, together * dk, together * dv))


def _cut(
    k: Tensor, v: Tensor, lengths: Tensor | None
) -> tuple[tuple[int, int], int, dict[str, Any]]:
    """The grid, tokens per part, and what the kernels of a stream are compiled for."""
    size = launching.sizes(k, v)
    rows = v.shape[0] * v.shape[2]
    parts, tokens = tuning.stream_parts(rows, v.shape[1], v)
    tiles = tuning.stream_tiles(v, max(size["BK"], size["BV"]))
    options = {**size, "C": tiles.chunk, "RAGGED": lengths is not None}
    return (rows, parts), tokens, {**options, **launching.precision(v), **tiles.options}


def _mean(sums: Tensor, lengths: Tensor | None, out: Tensor, length: int, together: int) -> None:
    """out (B, H, dk, dv) = the sum of sums (B * H, parts, dk, dv) over parts / true length."""
    rows, parts, dk, dv = sums.shape
    mean_state[(rows, triton.cdiv(dk * dv, launching.BLOCK))](
        sums, lengths, out, out.shape[1], length, parts, HEADS=together, DK=dk, DV=dv,
        BLOCK=launching.BLOCK, RAGGED=lengths is not None,
    )  # fmt: skip
