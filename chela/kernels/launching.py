"""What every launch of a Triton kernel needs, whichever operation it serves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor
from torch.torch_version import TorchVersion
from triton import knobs

INTERPRETED = bool(knobs.runtime.interpret)  # read once, as triton.jit does


def on(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device: make it that of ``x``."""
    return torch.cuda.device_of(x)


def padded(dim: int) -> int:
    """The width of a tile that holds ``dim`` channels: a power of two, for tl.dot at least 16."""
    return max(16, triton.next_power_of_2(dim))


@cache
def stages(wanted: int) -> int:
    """How many loads of a loop may be in flight: ``wanted``, or 1 where that is not safe.

    Before 3.7.1 Triton let a Hopper GPU's tensor cores (wgmma) read what a loop's copies in flight
    (cp.async) had written to shared memory, without the fence that PTX asks for between the two
    (fence.proxy.async; triton-lang/triton#9610). Loads of a loop of one stage have always had it.
    """
    return wanted if TorchVersion(triton.__version__) >= "3.7.1" else 1


def no_second_order(message: str) -> Callable[..., tuple[Tensor | None, ...]]:
    """The gradient of a gradient kernel, which there is none of: it raises ``message``."""

    def refuse(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        raise RuntimeError(message)

    return refuse
