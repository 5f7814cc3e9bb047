"""Linear attention without a denominator: o_t = q_t sum_m k_m^T v_m.

q and k are (B, L, H, dk) and v is (B, L, H, dv), all of one dtype; ``lengths`` is (B,) with the
true length of each sequence, or None when nothing is padded. Padded q, k and v may hold anything:
they take no part, and the output there is zero. Feature maps and normalisation are the model's
business, but for what the Triton kernels take along: given ``norm_weight`` and ``gate``, the output
is o / rms(o) * norm_weight * silu(gate), with the root mean square over each head's channels.

Tiling the causal form into chunks is CHELA's point (arXiv 2406.08128); the formulas are our
definition, since the paper's own equations were not available to us.
"""

from __future__ import annotations

from torch import Tensor

from chela.kernels.choice import Implementation
from chela.kernels.linear_attention import eager
from chela.kernels.linear_attention.eager import read, state
from chela.kernels.linear_attention.limits import obstacle

__all__ = ["bidirectional", "causal", "finish", "obstacle", "read", "recurrent_step", "state"]


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
    norm_weight: Tensor | None = None,
    gate: Tensor | None = None,
    implementation: Implementation = "torch",
) -> tuple[Tensor, Tensor]:
    """Every position attends to itself and the past: o_t = q_t (S_0 + sum_{m<=t} k_m^T v_m). O(L).

    Args:
        q: (B, L, H, dk).
        k: (B, L, H, dk).
        v: (B, L, H, dv).
        lengths: (B,).
        chunk_size: tokens C per tile, at least 1; changes speed, not the result. 64 balances the
            C^2 work inside a tile with the dk x dv states between tiles, and fits tensor cores.
            The Triton kernels choose their own.
        initial_state: S_0 (B, H, dk, dv), None for zeros: what an earlier piece of the same
            sequence returned.
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
    _check(q, k, v, token_axes=2)
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}: a chunk has at least one token, e.g. 64")
    if initial_state is not None:
        _check_state(initial_state, k, v)
    _check_epilogue(v, norm_weight, gate)
    if implementation == "triton" and q.numel() and v.numel():
        from chela.kernels.linear_attention import triton

        return triton.causal(q, k, v, lengths, initial_state, norm_weight, gate)
    out, state = eager.causal(q, k, v, lengths, chunk_size, initial_state)
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
    norm_weight: Tensor | None = None,
    gate: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One token of ``causal`` in constant memory: S = S + k_t^T v_t, then o_t = q_t S.

    Args:
        q_t: (B, H, dk).
        k_t: (B, H, dk).
        v_t: (B, H, dv).
        state: (B, H, dk, dv), float32 or float64; zeros at the start of a sequence.
        norm_weight: (dv,), gains of a norm per head with eps 1e-6; None for no norm.
        gate: (B, H, dv) in the dtype of v_t, before its SiLU; None for no gate.

    Returns:
        The output (B, H, dv) in the dtype of v_t, and the new state.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """
    _check(q_t, k_t, v_t, token_axes=1)
    _check_state(state, k_t, v_t)
    _check_epilogue(v_t, norm_weight, gate)
    o, state = eager.recurrent_step(q_t, k_t, v_t, state)
    return eager.finish(o, norm_weight, gate, None), state


def _check(q: Tensor, k: Tensor, v: Tensor, token_axes: int) -> None:
    axes = "(B, L, H, d)" if token_axes == 2 else "(B, H, d)"
    fits = q.ndim == token_axes + 2 and q.shape == k.shape and q.shape[:-1] == v.shape[:-1]
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
    expected = (k.shape[0], k.shape[-2], k.shape[-1], v.shape[-1])
    if tuple(state.shape) != expected:
        raise ValueError(f"the state is {tuple(state.shape)}; give (B, H, dk, dv) = {expected}")
