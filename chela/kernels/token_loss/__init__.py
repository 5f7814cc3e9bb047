"""The cross-entropy of a last linear map, without its scores ever being in memory.

    s_n = W x_n + b
    loss_n = logsumexp(s_n) - s_n[target_n]

With a vocabulary of V words the scores of N tokens are N V numbers: of 65,536 tokens and the
267,735 words of WikiText-103 70 GB in float32, and their gradient as much again. They are made in
chunks of tokens instead, looked at, and dropped; the backward pass makes each chunk once more. What
is kept is x, W and a number per token. What is alive at once is one chunk's scores, ``CHUNK`` of
them, in the arithmetic's precision and in float32: some 400 MB, however many tokens there are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chela.kernels.token_loss import chunked

__all__ = ["CHUNK", "token_loss"]

CHUNK = 1 << 26  # scores that are in memory at once


def token_loss(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    nothing: int,
    *,
    dtype: torch.dtype | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """The formula above. O(N V D), a third more of it than with all scores in memory.

    Args:
        x: (N, D).
        weight: (V, D) in any dtype; it is cast as autocast would.
        bias: (V,), likewise.
        targets: (N,) int64, ``nothing`` where nothing is asked: loss and hit are 0 there.
        nothing: a negative number.
        dtype: that of the matrix products, None for that of x; all sums are float32 or better.
        chunk: scores at once; at least those of one token.

    Returns:
        The losses (N,), and 1 where the target has the highest score, both in float32 (float64 for
        float64 x). Hits have no gradient, and losses no second one.

    Raises:
        ValueError: shapes do not fit together.
    """
    if x.ndim != 2 or weight.ndim != 2 or weight.shape[1] != x.shape[1]:
        raise ValueError(
            f"x {tuple(x.shape)} and weight {tuple(weight.shape)} do not fit; "
            "give x as (N, D) and weight as (V, D)"
        )
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"bias is {tuple(bias.shape)}; give (V,) = ({len(weight)},)")
    if targets.shape != x.shape[:1]:
        raise ValueError(f"targets are {tuple(targets.shape)}; give (N,) = ({len(x)},)")
    dtype = x.dtype if dtype is None else dtype
    at_once = max(1, chunk // len(weight))  # tokens
    losses, hits = chunked.TokenLoss.apply(x, weight, bias, targets, nothing, dtype, at_once)
    return losses, hits
