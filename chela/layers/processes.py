"""Statistics of a batch of which several processes hold a share each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_alone = False  # see alone


def processes() -> int:
    """How many processes compute together: those of the run."""
    several = not _alone and dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if several else 1


def is_alone() -> bool:
    """Whether this is computed inside ``alone``."""
    return _alone


@contextmanager
def alone() -> Iterator[None]:
    """What is computed inside concerns this process only: the others would not answer."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def merged(mean: Tensor, squares: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Statistics of all processes' tokens from those of each process (Chan et al. 1979).

    All processes call it, and go backward through it: a gradient is that of the sum of their
    losses.

    Args:
        mean: (D,) of this process's tokens.
        squares: (D,) sums of squared deviations from it.
        count: () of them.

    Returns:
        The same of all tokens.
    """
    n = processes()
    if n == 1:
        return mean, squares, count
    mine = torch.cat([mean, squares, count[None]])
    means, sums, counts = _gathered(mine, n).split([len(mean), len(mean), 1], dim=1)
    total = counts.sum()
    mean = (means * counts).sum(0) / total.clamp(min=1)
    return mean, (sums + counts * (means - mean).square()).sum(0), total


# Operations of their own, so that a compiler leaves them as they are and where they are.
@torch.library.custom_op("chela::gathered", mutates_args=())
def _gathered(mine: Tensor, n: int) -> Tensor:
    """The (D,) of all ``n`` processes (n, D)."""
    found = mine.new_zeros(n, len(mine))
    found[dist.get_rank()] = mine
    dist.all_reduce(found)
    return found


@_gathered.register_fake
def _(mine: Tensor, n: int) -> Tensor:
    return mine.new_empty(n, len(mine))


@torch.library.custom_op("chela::own_gradient", mutates_args=())
def _own_gradient(upstream: Tensor) -> Tensor:
    """This process's row of the sum of all processes' (n, D)."""
    total = upstream.clone()
    dist.all_reduce(total)
    return total[dist.get_rank()].clone()


@_own_gradient.register_fake
def _(upstream: Tensor) -> Tensor:
    return upstream.new_empty(upstream.shape[1])


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
    return _own_gradient(upstream), None


_gathered.register_autograd(_backward)
