"""What every launch of a Triton kernel needs, whichever operation it serves."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from itertools import zip_longest
from typing import Any

import torch
import triton
from torch import Tensor
from torch.torch_version import TorchVersion
from triton import knobs

INTERPRETED = bool(knobs.runtime.interpret)  # read once, as triton.jit does
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def check(x: Tensor, *others: torch.dtype, served: tuple[torch.dtype, ...] = DTYPES) -> None:
    """Hold ``x``, and other dtypes of the computation, against what the kernels serve.

    Raises:
        ValueError: a device or a dtype that they do not.
    """
    if not x.is_cuda and not INTERPRETED:
        raise ValueError(f"x is on {x.device}: Triton needs a GPU; use implementation='torch'")
    for dtype in (x.dtype, *others):
        if dtype not in served:
            names = ", ".join(str(each).removeprefix("torch.") for each in served)
            raise ValueError(
                f"{dtype}: the Triton kernels serve {names}; use implementation='torch'"
            )


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


def options(warps: int, ahead: int, registers: int | None = None) -> dict[str, int]:
    """Triton's launch options.

    Args:
        warps: of a program.
        ahead: loads in flight, where that is safe; see ``stages``.
        registers: per thread at most; fewer let more programs share a processor. None: no limit.
    """
    limit = {} if registers is None else {"maxnreg": registers}
    return {"num_warps": warps, "num_stages": stages(ahead), **limit}


def processors(x: Tensor) -> int:
    """Multiprocessors of the device of ``x``; a few for the interpreter on a CPU."""
    if not x.is_cuda:
        return 4
    return int(torch.cuda.get_device_properties(x.device).multi_processor_count)


def register(forward: Any, backward: Any) -> None:
    """Make ``backward`` the gradient of ``forward``; it has none of its own.

    Args:
        forward: the operator, of tensors or None, then of options; one result.
        backward: the operator, of the result's gradient and all that ``forward`` was given. It
            returns a gradient for each of the first tensors, whatever for None.
    """

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        tensors = [each for each in inputs if each is None or isinstance(each, Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.options = inputs[len(tensors) :]

    def gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        given = (*ctx.saved_tensors, *ctx.options)
        found = zip_longest(given, backward(upstream, *given))
        return tuple(None if each is None else gradient for each, gradient in found)

    forward.register_autograd(gradients, setup_context=save)
    backward.register_autograd(no_second_order)


def no_second_order(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradient of a gradient kernel: there is none."""
    raise RuntimeError(
        "the Triton kernels have no second-order gradients; "
        "use implementation='torch' (kernels=torch) where one is needed"
    )
