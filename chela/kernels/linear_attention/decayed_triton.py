"""Causal linear attention that forgets, as PyTorch operators over the Triton kernels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from chela.kernels.launching import on
from chela.kernels.linear_attention import decayed, epilogue, launching, tuning
from chela.kernels.linear_attention.decayed_kernels import (
    decayed_backward_query_key,
    decayed_backward_value,
    decayed_output,
)
from chela.kernels.linear_attention.decayed_state_kernels import decayed_states
from chela.kernels.linear_attention.launching import rows, strides


@torch.library.custom_op("chela::decayed_attention", mutates_args=())
def decayed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decays: Tensor,
    initial_state: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    lengths: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """out, the final state, the raw output (empty unless ``save`` needs it), the chunks' states.

    Args:
        decays: (B, H, N, C), see ``decayed_kernels``, in float32.
    """
    q, k, v, decays = (*(rows(x) for x in (q, k, v)), decays.contiguous())
    gate = None if gate is None else rows(gate)
    out, final, raw, states = _outputs(
        q, k, v, decays, initial_state, norm_weight, gate, lengths, save
    )
    _scan(k, v, decays, lengths, initial_state, None, states, final, None)
    batch, length, heads, _ = v.shape
    size, tiles = _cut(k, v)
    with on(v):
        decayed_output[(triton.cdiv(length, tiles.chunk), batch)](
            q, k, v, decays, gate, norm_weight, lengths, states, out, raw,
            *strides(q, k, v, gate, out), heads, length, EPS=launching.EPS, **size, C=tiles.chunk,
            RAGGED=lengths is not None, NORM=norm_weight is not None, GATE=gate is not None,
            SAVE=save, **launching.precision(v), **tiles.options,
        )  # fmt: skip
    return out, final, raw, states


@decayed_attention.register_fake
def _outputs(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Memory for out, the final state, the raw output and what each chunk starts from."""
    _, _, norm_weight, gate, _, save = rest
    out, final, raw = launching.outputs(k, v, norm_weight, gate, save)
    batch, heads, dk, dv = final.shape
    chunks = -(-v.shape[1] // chunk_of(k, v))
    return out, final, raw, v.new_empty((batch, chunks, heads, dk, dv))


@torch.library.custom_op("chela::decayed_attention_backward", mutates_args=())
def decayed_attention_backward(
    dout: Tensor,
    dfinal: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decays: Tensor,
    initial_state: Tensor | None,
    norm_weight: Tensor | None,
    gate: Tensor | None,
    lengths: Tensor | None,
    raw: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Those of q, k, v, decays, initial state, norm weight, gate; the last two may be empty."""
    q, k, v, decays = (*(rows(x) for x in (q, k, v)), decays.contiguous())
    dout, dweight, dgate = epilogue.gradients(dout, raw, norm_weight, gate, lengths)
    dout = rows(dout)
    dq, dk, dv, ddecays, dinitial = _gradients(q, k, v, decays)
    batch, length, heads, _ = v.shape
    size, tiles = _cut(k, v)
    chunks, slices = triton.cdiv(length, tiles.chunk), tuning.state_slices(k.shape[-1])
    dstates = torch.empty_like(states)
    products = dinitial.new_empty((slices, batch, chunks, heads))
    _scan(q, dout, decays, lengths, dfinal, states, dstates, dinitial, products)
    shared = {
        **size, "C": tiles.chunk, "RAGGED": lengths is not None, **launching.precision(v),
    }  # fmt: skip
    with on(v):
        decayed_backward_value[(chunks, batch)](
            q, k, v, dout, decays, lengths, states, dstates, products, dv, ddecays,
            *strides(q, k, v, dout, dv), heads, length,
            SLICES=slices, **shared, **tuning.decayed_values(tiles).options,
        )  # fmt: skip
        decayed_backward_query_key[(chunks, batch, 2)](
            q, k, v, dout, decays, lengths, states, dstates, dq, dk,
            *strides(q, k, v, dout, dq), heads, length, **shared, **tiles.options,
        )  # fmt: skip
    return dq, dk, dv, ddecays, dinitial, dweight, dgate


@decayed_attention_backward.register_fake
def _(
    dout: Tensor, dfinal: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    return *_gradients(q, k, v, rest[0]), *epilogue.empty_gradients(v, *rest[2:4])


launching.register(decayed_attention, decayed_attention_backward)


def chunk_of(k: Tensor, v: Tensor) -> int:
    """Tokens C of a chunk, as the operators expect them of ``decays``."""
    return _cut(k, v)[1].chunk


def _cut(k: Tensor, v: Tensor) -> tuple[dict[str, int], tuning.Tiles]:
    """Head dims and tiles, the chunks of which all kernels of a call share.

    Tiles of k and v are equally wide, up to the 128 bytes of a swizzle: where two with different
    swizzles take turns in the same shared memory, ptxas 12.8 forgets where the second one is.
    """
    size = launching.sizes(k, v)
    widest = min(max(size["BK"], size["BV"]), 64)
    size |= {name: max(size[name], widest) for name in ("BK", "BV")}
    return size, tuning.decayed_tiles(v, size["BV"])


def _gradients(q: Tensor, k: Tensor, v: Tensor, decays: Tensor) -> tuple[Tensor, ...]:
    """Memory for dq, dk, dv, ddecays and the initial state's gradient."""
    batch, _, heads, dv = v.shape
    dinitial = v.new_empty((batch, heads, k.shape[-1], dv), dtype=torch.float32)
    return *(x.new_empty(x.shape) for x in (q, k, v, decays)), dinitial


def _scan(
    b: Tensor,
    c: Tensor,
    decays: Tensor,
    lengths: Tensor | None,
    initial: Tensor | None,
    saved: Tensor | None,
    states: Tensor,
    end: Tensor,
    products: Tensor | None,
) -> None:
    """Fill ``states`` and ``end`` (B, H, dk, dv); with ``products``, backwards.

    Where there are too few heads to fill a GPU, parts of a sequence go at once, after a walk
    through each from zero that says what it adds.
    """
    batch, length, heads, dv = c.shape
    size, tiles = _cut(b, c)
    walking = tuning.decayed_walk(tiles)
    slices, back = tuning.state_slices(size["DK"]), products is not None
    parts, part_tokens = tuning.decayed_parts(batch * heads * slices, length, c)
    if initial is not None:
        initial = initial.float().contiguous().view(batch * heads, 1, -1, dv)

    def walk(before: Tensor | None, ends: Tensor, store: bool) -> None:
        decayed_states[(batch * heads, parts, slices)](
            b, c, decays, lengths, before, saved, states, ends, products,
            *strides(b, c), heads, length, part_tokens,
            DK=size["DK"], DV=dv, DB=size["DK"] // slices, BB=size["BK"] // slices, BV=size["BV"],
            C=tiles.chunk, RAGGED=lengths is not None, INITIAL=before is not None, BACK=back,
            STORE=store, **launching.precision(c), **walking.options,
        )  # fmt: skip

    with on(c):
        if parts == 1:
            walk(initial, end, store=True)
            return
        ends = end.new_empty((batch * heads, parts, size["DK"], dv))
        walk(None, ends, store=False)
        before = _boundaries(ends, initial, decays, part_tokens // tiles.chunk, back)
        walk(before, ends, store=True)
        end.copy_(ends[:, 0 if back else -1].view_as(end))


def _boundaries(
    ends: Tensor, first: Tensor | None, decays: Tensor, part_chunks: int, back: bool
) -> Tensor:
    """(B * H, parts, dk, dv): the state that each part starts from, or going back ends with."""
    parts = ends.shape[1]
    totals = decays[..., -1].flatten(0, 1)  # (B * H, N)
    totals = F.pad(totals, (0, parts * part_chunks - totals.shape[1]))
    g = totals.unflatten(1, (parts, part_chunks)).sum(2)
    if first is None:
        first = torch.zeros_like(ends[:, :1])
    if back:
        ends, g = ends.flip(1), g.flip(1)
    x = torch.cat([first, ends[:, :-1]], dim=1)[:, None, :, :, None]  # (B * H, 1, parts, dk, 1, dv)
    g = F.pad(g[:, :-1], (1, 0))[:, None, :, None]
    running = decayed.running(x, g)[:, 0, :, :, 0]
    return (running.flip(1) if back else running).contiguous()
