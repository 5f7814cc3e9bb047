"""Linear attention without a denominator: o_t = q_t sum_m k_m^T v_m.

q and k are (B, L, H, dk) and v is (B, L, H, dv), all of one dtype, and in the causal form q and k
may have one head that all heads of v share, (B, L, 1, dk); ``lengths`` is (B,) with the
true length of each sequence, or None when nothing is padded. Padded q, k and v may hold anything:
they take no part, and the output there is zero. Feature maps and normalisation are the model's
business, but for what the Triton kernels take along: given ``norm_weight`` and ``gate``, the output
is o / rms(o) * norm_weight * silu(gate), with the root mean square over each head's channels.

Given ``log_decay``, the causal form forgets: S_t = exp(log_decay_t) S_{t-1} + k_t^T v_t, a number
per token and head, as in Mamba-2 (Dao and Gu 2024, arXiv 2405.21060, section 6).

Tiling the causal form into chunks is CHELA's point (arXiv 2406.08128); the formulas are our
definition, since the paper's own equations were not available to us.
"""

from __future__ import annotations

from torch import Tensor

from chela.kernels.choice import Implementation
from chela.kernels.linear_attention import decayed, eager
from chela.kernels.linear_attention.decayed import state as decayed_state
from chela.kernels.linear_attention.eager import read, state
from chela.kernels.linear_attention.limits import obstacle
from chela.kernels.masking import check_lengths
from chela.kernels.precision import accumulation_dtype

__all__ = [
    "bidirectional",
    "causal",
    "decayed_state",
    "finish",
    "obstacle",
    "read",
    "recurrent_step",
    "state",
]


def bidirectional(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    *,
    norm_weight: Tensor | None = None,
    gate: Tensor | None = None,
    implementation: Implementation = "torch",
) -> Tensor:
    """Every position attends to the whole sequence: o = q (k^T v) / length. O(L).

    Args:
        q: (B, L, H, dk).
        k: (B, L, H, dk).
        v: (B, L, H, dv).
        lengths: (B,); a length of 0 divides by 1 and gives zeros.
        norm_weight: (dv,), gains of a norm per head with eps 1e-6; None for no norm.
        gate: (B, L, H, dv) in the dtype of v, before its SiLU; None for no gate.
        implementation: ``torch``, or ``triton`` for the kernels; ``choose`` says which can run.

    Returns:
        (B, L, H, dv) in the dtype of v.

    Raises:
        ValueError: shapes or dtypes do not fit together, or the kernels do not have them.
    """
    _check(q, k, v, token_axes=2)
    check_lengths(lengths, v)
    _check_epilogue(v, norm_weight, gate)
    if implementation == "triton" and q.numel() and v.numel():
        from chela.kernels.linear_attention import triton

        return triton.bidirectional(q, k, v, lengths, norm_weight, gate)
    return eager.finish(eager.bidirectional(q, k, v, lengths), norm_weight, gate, lengths)


def causal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
    *,
    log_decay: Tensor | None = None,
    norm_weight: Tensor | None = None,
    gate: Tensor | None = None,
    implementation: Implementation = "torch",
) -> tuple[Tensor, Tensor]:
    """Every position attends to itself and the past: o_t = q_t (S_0 + sum_{m<=t} k_m^T v_m). O(L).

    With a decay: o_t = q_t (exp(c_t) S_0 + sum_{m<=t} exp(c_t - c_m) k_m^T v_m) for the running sum
    c of ``log_decay``.

    Args:
        q: (B, L, H, dk), or (B, L, 1, dk) for one head that all share.
        k: like q.
        v: (B, L, H, dv).
        lengths: (B,).
        chunk_size: tokens C per tile, at least 1; changes speed, not the result. 64 balances the
            C^2 work inside a tile with the dk x dv states between tiles, and fits tensor cores.
            The Triton kernels choose their own.
        initial_state: S_0 (B, H, dk, dv), None for zeros: what an earlier piece of the same
            sequence returned.
        log_decay: (B, L, H) in float32 (float64 for float64 inputs), at most 0: what a token does
            to the state before it is added, exp of it times S. None for 0, a sum of all.
        norm_weight: (dv,), gains of a norm per head with eps 1e-6; None for no norm.
        gate: (B, L, H, dv) in the dtype of v, before its SiLU; None for no gate.
        implementation: ``torch``, or ``triton`` for the kernels; ``choose`` says which can run.

    Returns:
        The output (B, L, H, dv) in the dtype of v, and the state (B, H, dk, dv) after each
        sequence's last true token, in float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes or dtypes do not fit together or the kernels do not have them, or
            ``chunk_size`` < 1.
    """
    _check(q, k, v, token_axes=2, shared=True)
    check_lengths(lengths, v)
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}: a chunk has at least one token, e.g. 64")
    if initial_state is not None:
        _check_state(initial_state, k, v)
    _check_decay(log_decay, v)
    _check_epilogue(v, norm_weight, gate)
    if log_decay is None:
        q, k = (x.expand(-1, -1, v.shape[2], -1) for x in (q, k))
    if implementation == "triton" and q.numel() and v.numel():
        from chela.kernels.linear_attention import triton

        return triton.causal(q, k, v, log_decay, lengths, initial_state, norm_weight, gate)
    if log_decay is None:
        out, state = eager.causal(q, k, v, lengths, chunk_size, initial_state)
    else:
        out, state = decayed.causal(q, k, v, log_decay, lengths, chunk_size, initial_state)
    return eager.finish(out, norm_weight, gate, lengths), state


def finish(
    o: Tensor,
    lengths: Tensor | None = None,
    *,
    norm_weight: Tensor | None = None,
    gate: Tensor | None = None,
    implementation: Implementation = "torch",
) -> Tensor:
    """What both forms do with o (B, L, H, dv) at last, for an o that was put together otherwise.

    Args:
        o: zero at padded positions.
        lengths: (B,).
        norm_weight: (dv,), see there.
        gate: (B, L, H, dv), see there.
        implementation: see there.
    """
    if implementation == "triton" and o.numel():
        from chela.kernels.linear_attention import triton

        return triton.finished(o, norm_weight, gate, lengths)
    return eager.finish(o, norm_weight, gate, lengths)


def recurrent_step(
    q_t: Tensor,
    k_t: Tensor,
    v_t: Tensor,
    state: Tensor,
    *,
    log_decay: Tensor | None = None,
    norm_weight: Tensor | None = None,
    gate: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One token of ``causal`` in constant memory: S = S + k_t^T v_t, then o_t = q_t S.

    Args:
        q_t: (B, H, dk), or (B, 1, dk) for one head that all share.
        k_t: like q_t.
        v_t: (B, H, dv).
        state: (B, H, dk, dv), float32 or float64; zeros at the start of a sequence.
        log_decay: (B, H), what S is multiplied by the exp of first; None for 0.
        norm_weight: (dv,), gains of a norm per head with eps 1e-6; None for no norm.
        gate: (B, H, dv) in the dtype of v_t, before its SiLU; None for no gate.

    Returns:
        The output (B, H, dv) in the dtype of v_t, and the new state.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """
    _check(q_t, k_t, v_t, token_axes=1, shared=True)
    _check_state(state, k_t, v_t)
    _check_decay(log_decay, v_t)
    _check_epilogue(v_t, norm_weight, gate)
    q_t, k_t = (x.expand(-1, v_t.shape[1], -1) for x in (q_t, k_t))
    o, state = eager.recurrent_step(q_t, k_t, v_t, state, log_decay)
    return eager.finish(o, norm_weight, gate, None), state


def _check(q: Tensor, k: Tensor, v: Tensor, token_axes: int, shared: bool = False) -> None:
    axes = "(B, L, H, d)" if token_axes == 2 else "(B, H, d)"
    fits = q.ndim == v.ndim == token_axes + 2 and q.shape == k.shape
    fits = fits and q.shape[:token_axes] == v.shape[:token_axes]
    fits = fits and (q.shape[-2] == v.shape[-2] or (shared and q.shape[-2] == 1))
    if not fits:
        shapes = f"{tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        raise ValueError(f"q, k, v are {shapes}; give all as {axes}, with the d of q and k equal")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}; cast them to one dtype")


def _check_epilogue(v: Tensor, norm_weight: Tensor | None, gate: Tensor | None) -> None:
    if norm_weight is not None and norm_weight.shape != v.shape[-1:]:
        raise ValueError(
            f"norm_weight is {tuple(norm_weight.shape)}; give (dv,) = ({v.shape[-1]},)"
        )
    if gate is not None and (gate.shape != v.shape or gate.dtype != v.dtype):
        raise ValueError(
            f"gate is {tuple(gate.shape)} in {gate.dtype}; "
            f"give it like v, {tuple(v.shape)} in {v.dtype}"
        )


def _check_state(state: Tensor, k: Tensor, v: Tensor) -> None:
    expected = (v.shape[0], v.shape[-2], k.shape[-1], v.shape[-1])
    if tuple(state.shape) != expected:
        raise ValueError(f"the state is {tuple(state.shape)}; give (B, H, dk, dv) = {expected}")


def _check_decay(log_decay: Tensor | None, v: Tensor) -> None:
    if log_decay is None:
        return
    dtype = accumulation_dtype(v)
    if log_decay.shape != v.shape[:-1] or log_decay.dtype != dtype:
        raise ValueError(
            f"log_decay is {tuple(log_decay.shape)} in {log_decay.dtype}; give a number for each "
            f"token and head, {tuple(v.shape[:-1])}, in {dtype}"
        )
