"""Causal linear attention as PyTorch operators over the Triton kernels."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from chela.kernels.launching import on
from chela.kernels.linear_attention import epilogue, launching, tuning
from chela.kernels.linear_attention.causal_kernels import causal_backward, causal_forward
from chela.kernels.linear_attention.launching import packed, rows, strides
from chela.kernels.linear_attention.state_kernels import running_sums


@torch.library.custom_op("chela::causal_attention", mutates_args=())
def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    initial_state: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    lengths: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """out, the final state, and for the gradient (else empty) the raw output and the states."""
    q, k, v = (rows(x) for x in (q, k, v))
    gate = None if gate is None else rows(gate)
    out, final, raw, saved = _outputs(q, k, v, initial_state, norm_weight, gate, lengths, save)
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
            *strides(q, k, v, gate, out), heads, length, part_tokens, save_tokens,
            EPS=launching.EPS, **size, C=tiles.chunk,
            RAGGED=lengths is not None, BEFORE=before is not None,
            NORM=norm_weight is not None, GATE=gate is not None, SAVE=save,
            **launching.precision(v), **tiles.options,
        )  # fmt: skip
    return out, final, raw, saved


@causal_attention.register_fake
def _outputs(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Memory for out, the final state, the raw output and the saved states."""
    _, norm_weight, gate, _, save = rest
    out, final, raw = launching.outputs(k, v, norm_weight, gate, save)
    batch, heads, dk, dv = final.shape
    parts = tuning.backward_parts(batch * heads, v.shape[1], v)[0] if save else 0
    return out, final, raw, final.new_empty((batch * heads, parts, dk, dv))


@torch.library.custom_op("chela::causal_attention_backward", mutates_args=())
def causal_attention_backward(
    dout: Tensor,
    dfinal: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    initial_state: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    lengths: Tensor | None,
    raw: Tensor,
    saved: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v, initial state, norm weight, gate; the last two may be empty."""
    q, k, v = (rows(x) for x in (q, k, v))
    dout, dweight, dgate = epilogue.gradients(dout, raw, norm_weight, gate, lengths)
    dout = rows(dout)
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
            *strides(q, k, v, dout, dq, dv), heads, length, part_tokens,
            **size, C=tiles.chunk, RAGGED=lengths is not None, AFTER=after is not None,
            **launching.precision(v), **tiles.options,
        )  # fmt: skip
    return dq, dk, dv, dinitial, dweight, dgate


@causal_attention_backward.register_fake
def _(
    dout: Tensor, dfinal: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    return *_gradients(q, k, v), *epilogue.empty_gradients(v, *rest[1:3])


launching.register(causal_attention, causal_attention_backward)


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
    batch, _, heads, dc = c.shape
    db = b.shape[-1]
    together = launching.heads_side_by_side(b, c)
    sums = launching.part_sums(
        packed(b, together), packed(c, together), lengths, parts, part_tokens
    )
    running = sums.new_empty((batch * heads, parts, db, dc))
    with on(c):
        running_sums[(batch * heads, triton.cdiv(db * dc, launching.BLOCK))](
            sums, initial, running, parts, HEADS=together, DK=db, DV=dc,
            BLOCK=launching.BLOCK, INITIAL=initial is not None, REVERSE=reverse,
        )  # fmt: skip
    return running
