"""Causal linear attention as PyTorch operators over the Triton kernels."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from chela.kernels.launching import no_second_order, on
from chela.kernels.linear_attention import epilogue, launching, tuning
from chela.kernels.linear_attention.causal_kernels import causal_backward, causal_forward
from chela.kernels.linear_attention.state_kernels import part_states, running_sums


@torch.library.custom_op("chela::causal_attention", mutates_args=())
def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    initial_state: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """out, the final state, and for the gradient (else empty) the raw output and the states."""
    q, k, v = (launching.rows(x) for x in (q, k, v))
    gate = None if gate is None else launching.rows(gate)
    out, final, raw, saved = _outputs(k, v, norm_weight, gate, save)
    batch, length, heads, _ = v.shape
    size = launching.sizes(k, v)
    parts, part_tokens = tuning.forward_parts(batch * heads, length, v)
    _, save_tokens = tuning.backward_parts(batch * heads, length, v)
    before = None if initial_state is None else initial_state.float().contiguous()
    if parts > 1:
        before = _boundaries(k, v, lengths, before, parts, part_tokens, reverse=False)
    tiles = tuning.forward_tiles(v, max(size["BK"], size["BV"]))
    with on(v):
        causal_forward[(batch * heads, parts)](
            q, k, v, gate, norm_weight, lengths, before, out, raw, saved, final,
            launching.strides(q), launching.strides(k), launching.strides(v),
            None if gate is None else launching.strides(gate), launching.strides(out),
            heads, length, part_tokens, save_tokens,
            EPS=launching.EPS, **size, C=tiles.chunk,
            RAGGED=lengths is not None, BEFORE=before is not None,
            NORM=norm_weight is not None, GATE=gate is not None, SAVE=save,
            **launching.precision(v), **tiles.options,
        )  # fmt: skip
    return out, final, raw, saved


@causal_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    initial_state: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(k, v, norm_weight, gate, save)


@torch.library.custom_op("chela::causal_attention_backward", mutates_args=())
def causal_attention_backward(
    dout: Tensor,
    dfinal: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    raw: Tensor,
    saved: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v, initial state, norm weight, gate; the last two may be empty."""
    q, k, v = (launching.rows(x) for x in (q, k, v))
    dweight, dgate = v.new_empty(0), v.new_empty(0)
    if norm_weight is not None or gate is not None:
        dout, dweight, dgate = epilogue.gradients(dout, raw, norm_weight, gate, lengths)
    dout = launching.rows(dout)
    dq, dk, dv, dinitial = _gradients(q, k, v)
    batch, length, heads, _ = v.shape
    size = launching.sizes(k, v)
    parts, part_tokens = tuning.backward_parts(batch * heads, length, v)
    after = None if dfinal is None else dfinal.float().contiguous()
    if parts > 1:
        after = _boundaries(q, dout, lengths, after, parts, part_tokens, reverse=True)
    tiles = tuning.backward_tiles(v, max(size["BK"], size["BV"]), part_tokens)
    with on(v):
        causal_backward[(3 * batch * heads, parts)](
            q, k, v, dout, lengths, saved, after, dq, dk, dv, dinitial,
            launching.strides(q), launching.strides(k), launching.strides(v),
            launching.strides(dout), launching.strides(dq), launching.strides(dv),
            heads, length, part_tokens,
            **size, C=tiles.chunk,
            RAGGED=lengths is not None, AFTER=after is not None,
            **launching.precision(v), **tiles.options,
        )  # fmt: skip
    return dq, dk, dv, dinitial, dweight, dgate


@causal_attention_backward.register_fake
def _(
    dout: Tensor,
    dfinal: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    raw: Tensor,
    saved: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    dweight, dgate = epilogue.empty_gradients(v, norm_weight, gate)
    return *_gradients(q, k, v), dweight, dgate


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, lengths, initial_state, norm_weight, gate, _ = inputs
    ctx.set_materialize_grads(False)  # no zeros for the two outputs nobody differentiates
    ctx.save_for_backward(q, k, v, lengths, norm_weight, gate, output[2], output[3])
    ctx.state_dtype = None if initial_state is None else initial_state.dtype


def _backward(
    ctx: Any, dout: Tensor | None, dfinal: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    q, k, v, lengths, norm_weight, gate, raw, saved = ctx.saved_tensors
    if dout is None:
        dout = torch.zeros_like(v)
    dq, dk, dv, dinitial, dweight, dgate = causal_attention_backward(
        dout, dfinal, q, k, v, lengths, norm_weight, gate, raw, saved
    )
    return (
        dq,
        dk,
        dv,
        None,
        None if ctx.state_dtype is None else dinitial.to(ctx.state_dtype),
        None if norm_weight is None else dweight,
        None if gate is None else dgate,
        None,
    )


causal_attention.register_autograd(_backward, setup_context=_save)
causal_attention_backward.register_autograd(no_second_order)


def _outputs(
    k: Tensor, v: Tensor, norm_weight: Tensor | None, gate: Tensor | None, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Memory for out, the final state, the raw output and the saved states."""
    batch, length, heads, dv = v.shape
    dk = k.shape[-1]
    out = v.new_empty((batch, length, heads, dv))
    final = v.new_empty((batch, heads, dk, dv), dtype=torch.float32)
    finished = norm_weight is not None or gate is not None
    raw = v.new_empty(out.shape if save and finished else (0,))
    parts = tuning.backward_parts(batch * heads, length, v)[0] if save else 0
    return out, final, raw, final.new_empty((batch * heads, parts, dk, dv))


def _gradients(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Memory for dq, dk, dv and the initial state's gradient."""
    batch, _, heads, dk = k.shape
    dinitial = v.new_empty((batch, heads, dk, v.shape[-1]), dtype=torch.float32)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), dinitial


def _boundaries(
    b: Tensor,
    c: Tensor,
    lengths: Tensor | None,
    initial: Tensor | None,
    parts: int,
    part_tokens: int,
    reverse: bool,
) -> Tensor:
    """(B * H, parts, db, dc): initial + the sum of b^T c over all parts before (after) each."""
    batch, length, heads, dc = c.shape
    together = launching.heads_side_by_side(b, c)
    running = c.new_empty((batch * heads, parts, b.shape[-1], dc), dtype=torch.float32)
    b, c = launching.packed(b, together), launching.packed(c, together)
    size = launching.sizes(b, c)
    programs = batch * heads // together
    sums = running.new_empty((programs, parts, size["DK"], size["DV"]))
    tiles = tuning.stream_tiles(c, max(size["BK"], size["BV"]))
    with on(c):
        part_states[(programs, parts)](
            b, c, lengths, sums, launching.strides(b), launching.strides(c),
            heads // together, length, part_tokens,
            DB=size["DK"], DC=size["DV"], BB=size["BK"], BC=size["BV"], C=tiles.chunk,
            RAGGED=lengths is not None, **launching.precision(c),
            **tiles.options,
        )  # fmt: skip
        elements = running.shape[-2] * running.shape[-1]
        running_sums[(batch * heads, triton.cdiv(elements, launching.BLOCK))](
            sums, initial, running, parts, HEADS=together, DK=running.shape[-2], DV=dc,
            BLOCK=launching.BLOCK, INITIAL=initial is not None, REVERSE=reverse,
        )  # fmt: skip
    return running
