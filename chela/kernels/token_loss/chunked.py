"""The loss in chunks of tokens, whose scores are made twice and kept never."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from chela.kernels.precision import accumulation_dtype, without_autocast


class TokenLoss(torch.autograd.Function):
    """See ``chela.kernels.token_loss``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        nothing: int,
        dtype: torch.dtype,
        at_once: int,
    ) -> tuple[Tensor, Tensor]:
        """The losses and the hits (N,)."""
        wide = accumulation_dtype(x)
        losses, hits, sums = (x.new_empty(len(x), dtype=wide) for _ in range(3))
        narrow = weight.to(dtype)
        for part in _parts(len(x), at_once):
            scores = _scores(x[part], narrow, bias, wide)
            losses[part] = scores.gather(1, targets[part, None].clamp(min=0))[:, 0]
            best, chosen = scores.max(-1)
            hits[part] = (chosen == targets[part]).to(wide)
            sums[part] = scores.sub_(best[:, None]).exp_().sum(-1).log_().add_(best)
            del scores  # before there are the next ones
        asked = targets != nothing
        losses = torch.where(asked, sums - losses, 0)
        ctx.save_for_backward(x, weight, bias, targets, sums)
        ctx.choices = asked, dtype, at_once
        ctx.mark_non_differentiable(hits)
        return losses, hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Softmax minus one at the target, chunk by chunk."""
        x, weight, bias, targets, sums = ctx.saved_tensors
        asked, dtype, at_once = ctx.choices
        wide = accumulation_dtype(x)
        grad = torch.where(asked, grad.to(wide), 0)
        narrow = weight.to(dtype)
        of_x = torch.empty_like(x)
        of_weight, of_bias = (torch.zeros_like(each, dtype=wide) for each in (weight, bias))
        with without_autocast(x):
            for part in _parts(len(x), at_once):
                scores = _scores(x[part], narrow, bias, wide)
                errors = scores.sub_(sums[part, None]).exp_()
                ones = torch.full_like(errors[:, :1], -1)
                errors.scatter_add_(1, targets[part, None].clamp(min=0), ones)
                errors *= grad[part, None]
                of_bias += errors.sum(0)
                errors = errors.to(dtype)
                of_x[part] = (errors @ narrow).to(x.dtype)
                of_weight += errors.T @ x[part].to(dtype)
                del scores, errors
        return of_x, of_weight.to(weight.dtype), of_bias.to(bias.dtype), None, None, None, None


def _parts(count: int, at_once: int) -> list[slice]:
    return [slice(start, start + at_once) for start in range(0, count, at_once)]


def _scores(x: Tensor, weight: Tensor, bias: Tensor, wide: torch.dtype) -> Tensor:
    """Those of some tokens (n, V), in float32 or better."""
    with without_autocast(x):
        return (x.to(weight.dtype) @ weight.T).to(wide).add_(bias)
