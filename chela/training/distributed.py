"""The few things that the processes of one run have to agree on, if there are several."""

from __future__ import annotations

import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor


def is_leader() -> bool:
    """Whether this process writes files and prints: rank 0, which starts the others."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def processes() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes; a copy of itself if there is one."""
    value = value.clone()
    if processes() > 1:
        dist.all_reduce(value)
    return value


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes; a copy of itself if there is one."""
    return total(value) / processes()
