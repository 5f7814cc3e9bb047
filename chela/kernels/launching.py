"""What every launch of a Triton kernel needs, whichever operation it serves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import triton
from torch import Tensor
from triton import knobs

INTERPRETED = bool(knobs.runtime.interpret)  # read once, as triton.jit does


def on(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device: make it that of ``x``."""
    return torch.cuda.device_of(x)


def padded(dim: int) -> int:
    """The width of a tile that holds ``dim`` channels: a power of two, for tl.dot at least 16."""
    return max(16, triton.next_power_of_2(dim))


def no_second_order(message: str) -> Callable[..., tuple[Tensor | None, ...]]:
    """The gradient of a gradient kernel, which there is none of: it raises ``message``."""

    def refuse(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        raise RuntimeError(message)

    return refuse
