"""Bidirectional linear attention as PyTorch operators over the Triton kernels."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from chela.kernels.launching import no_second_order, on
from chela.kernels.linear_attention import epilogue, launching, tuning
from chela.kernels.linear_attention.bidirectional_kernels import (
    bidirectional_backward_key,
    bidirectional_backward_query,
    bidirectional_output,
)
from chela.kernels.linear_attention.state_kernels import mean_state, part_states


@torch.library.custom_op("chela::bidirectional_attention", mutates_args=())
def bidirectional_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """out, and for the gradient the raw output (else empty) and the state."""
    out, raw, state = _outputs(k, v, norm_weight, gate, save)
    together = launching.heads_side_by_side(k, v)
    q, k, v, wide_out = (launching.packed(x, together) for x in (q, k, v, out))
    gate = None if gate is None else launching.packed(gate, together)
    batch, length, heads, _ = v.shape
    size = launching.sizes(k, v)
    parts, part_tokens = tuning.stream_parts(batch * heads, length, v)
    tiles = tuning.stream_tiles(v, max(size["BK"], size["BV"]))
    grid = (batch * heads, parts)
    sums = state.new_empty((batch * heads, parts, size["DK"], size["DV"]))
    with on(v):
        part_states[grid](
            k, v, lengths, sums, launching.strides(k), launching.strides(v),
            heads, length, part_tokens,
            DB=size["DK"], DC=size["DV"], BB=size["BK"], BC=size["BV"], C=tiles.chunk,
            RAGGED=lengths is not None, **launching.precision(v),
            **tiles.options,
        )  # fmt: skip
        _mean(sums, lengths, state, heads, length, together)
        bidirectional_output[grid](
            q, gate, norm_weight, lengths, state, wide_out, raw,
            launching.strides(q), None if gate is None else launching.strides(gate),
            launching.strides(wide_out), heads, length, part_tokens,
            EPS=launching.EPS, HEADS=together, **size, C=tiles.chunk, RAGGED=lengths is not None,
            NORM=norm_weight is not None, GATE=gate is not None, SAVE=save,
            **launching.precision(v), **tiles.options,
        )  # fmt: skip
    return out, raw, state


@bidirectional_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(k, v, norm_weight, gate, save)


@torch.library.custom_op("chela::bidirectional_attention_backward", mutates_args=())
def bidirectional_attention_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    raw: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v, norm weight and gate; the last two may be empty."""
    dweight, dgate = v.new_empty(0), v.new_empty(0)
    if norm_weight is not None or gate is not None:
        dout, dweight, dgate = epilogue.gradients(dout, raw, norm_weight, gate, lengths)
    gradients = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    together = launching.heads_side_by_side(k, v)
    q, k, v, dout = (launching.packed(x, together) for x in (q, k, v, dout))
    dq, dk, dv = (launching.packed(x, together) for x in gradients)
    batch, length, heads, _ = v.shape
    size = launching.sizes(k, v)
    parts, part_tokens = tuning.stream_parts(batch * heads, length, v)
    tiles = tuning.stream_tiles(v, max(size["BK"], size["BV"]))
    grid = (batch * heads, parts)
    common = {
        **size,
        **launching.precision(v),
        "C": tiles.chunk,
        "RAGGED": lengths is not None,
        **tiles.options,
    }
    sums = state.new_empty((batch * heads, parts, size["DK"], size["DV"]))
    dstate = torch.empty_like(state)
    with on(v):
        bidirectional_backward_query[grid](
            q, dout, lengths, state, dq, sums,
            launching.strides(q), launching.strides(dout), launching.strides(dq),
            heads, length, part_tokens, **common,
        )  # fmt: skip
        _mean(sums, lengths, dstate, heads, length, together)
        bidirectional_backward_key[grid](
            k, v, lengths, dstate, dk, dv,
            launching.strides(k), launching.strides(v), launching.strides(dk),
            launching.strides(dv), heads, length, part_tokens, **common,
        )  # fmt: skip
    return *gradients, dweight, dgate


@bidirectional_attention_backward.register_fake
def _(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    raw: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dweight, dgate = epilogue.empty_gradients(v, norm_weight, gate)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), dweight, dgate


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, lengths, norm_weight, gate, _ = inputs
    ctx.set_materialize_grads(False)  # no zeros for the two outputs nobody differentiates
    ctx.save_for_backward(q, k, v, lengths, norm_weight, gate, output[1], output[2])


def _backward(ctx: Any, dout: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, lengths, norm_weight, gate, raw, state = ctx.saved_tensors
    if dout is None:
        dout = torch.zeros_like(v)
    dq, dk, dv, dweight, dgate = bidirectional_attention_backward(
        dout, q, k, v, lengths, norm_weight, gate, raw, state
    )
    return (
        dq,
        dk,
        dv,
        None,
        None if norm_weight is None else dweight,
        None if gate is None else dgate,
        None,
    )


bidirectional_attention.register_autograd(_backward, setup_context=_save)
bidirectional_attention_backward.register_autograd(no_second_order)


def _outputs(
    k: Tensor, v: Tensor, norm_weight: Tensor | None, gate: Tensor | None, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for out, the raw output and the state."""
    batch, length, heads, dv = v.shape
    out = v.new_empty((batch, length, heads, dv))
    finished = norm_weight is not None or gate is not None
    raw = v.new_empty(out.shape if save and finished else (0,))
    together = launching.heads_side_by_side(k, v)
    state = (batch, heads // together, together * k.shape[-1], together * dv)
    return out, raw, v.new_empty(state, dtype=torch.float32)


def _mean(
    sums: Tensor, lengths: Tensor | None, out: Tensor, heads: int, length: int, together: int
) -> None:
    """out (B, H, dk, dv) = the sum of sums (B * H, parts, dk, dv) over parts / true length."""
    rows, parts, dk, dv = sums.shape
    mean_state[(rows, triton.cdiv(dk * dv, launching.BLOCK))](
        sums, lengths, out, heads, length, parts, HEADS=together, DK=dk, DV=dv,
        BLOCK=launching.BLOCK, RAGGED=lengths is not None,
    )  # fmt: skip
