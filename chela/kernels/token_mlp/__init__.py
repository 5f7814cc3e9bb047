"""An MLP of each token by itself, with the norm before it and the residual around it.

    y = residual + dropout(W_out dropout(silu(W_hidden n + b_hidden) * factor) + b_out),  n = n(x)

One operation for three parts of a block: the feed-forward MLP (no factor), its GLU form (the factor
is a second projection W_up n + b_up; SwiGLU, Shazeer 2020), and the output gate of the mixer (the
factor is the attention's output, x the convolutions'). The Triton form keeps everything between x
and y on the chip.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chela.kernels.choice import Implementation
from chela.kernels.masking import check_lengths
from chela.kernels.token_mlp import eager
from chela.kernels.token_mlp.arguments import Weights
from chela.kernels.tokens import NO_NORM, TokenNorm

__all__ = ["Weights", "mlp"]


def mlp(
    x: Tensor,
    weights: Weights,
    *,
    norm: TokenNorm = NO_NORM,
    factor: Tensor | None = None,
    residual: Tensor | None = None,
    add_x: bool = False,  # explicit: a gate's x is not what it adds to
    lengths: Tensor | None = None,
    hidden_dropout: float = 0.0,  # as in evaluation
    dropout: float = 0.0,
    tied_dropout: bool = False,
    dtype: torch.dtype | None = None,
    implementation: Implementation = "torch",  # runs on every device
) -> Tensor:
    """The formula above. O(L D H).

    Args:
        x: (B, L, D).
        weights: matrices and biases, in any dtype; they are cast as autocast would.
        norm: n, of each token by itself.
        factor: (B, L, H), None for none; not beside ``weights.w_up``.
        residual: (B, L, D) what the rest is added to, None for nothing.
        add_x: the residual is x, before its norm; not beside ``residual``.
        lengths: (B,) true lengths, None when nothing is padded. Padded x, factor and residual may
            hold anything; the output there is zero.
        hidden_dropout: the probability with which an input of W_out is dropped.
        dropout: the same of an output of W_out. Both draw from PyTorch's generator.
        tied_dropout: both have one draw for all tokens of a sequence's channel.
        dtype: that of the matrix products, None for that of x.
        implementation: ``torch``, or ``triton`` for one fused kernel per direction on a GPU: D up
            to 512, float32 and narrower x, no second-order gradients.

    Returns:
        (B, L, D), in the wider of ``dtype`` and the residual's dtype.

    Raises:
        ValueError: shapes do not fit together, a probability lies outside [0, 1), or
            ``implementation`` does not serve these arguments.
    """
    _check(x, weights, norm, factor, residual, add_x)
    check_lengths(lengths, x)
    for name, p in (("hidden_dropout", hidden_dropout), ("dropout", dropout)):
        if not 0 <= p < 1:
            raise ValueError(f"{name}={p}: give a probability of at least 0 and below 1")
    dtype = x.dtype if dtype is None else dtype
    options = (norm, factor, residual, add_x, lengths, hidden_dropout, dropout, tied_dropout, dtype)
    if implementation == "torch":
        return eager.mlp(x, weights, *options)
    from chela.kernels.token_mlp import fused  # Triton exists on Linux only

    return fused.mlp(x, weights, *options)


def _check(
    x: Tensor,
    weights: Weights,
    norm: TokenNorm,
    factor: Tensor | None,
    residual: Tensor | None,
    add_x: bool,
) -> None:
    if x.ndim != 3:
        raise ValueError(f"x is {tuple(x.shape)}; give (B, L, D)")
    weights.check(x.shape[-1])
    norm.check(x.shape[-1])
    if factor is not None and weights.w_up is not None:
        raise ValueError("both factor and w_up are given; the hidden channels have one factor")
    if residual is not None and add_x:
        raise ValueError("both residual and add_x are given; the output is added to one of them")
    hidden = (*x.shape[:2], weights.w_hidden.shape[0])
    if factor is not None and factor.shape != hidden:
        raise ValueError(f"factor is {tuple(factor.shape)}; give (B, L, H) = {hidden}")
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"residual is {tuple(residual.shape)}; give it like x, {tuple(x.shape)}")
