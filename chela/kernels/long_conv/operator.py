"""What the Triton forms of the long convolution share as operators: the call, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from chela.kernels.launching import check, no_second_order


def convolve_by(
    forward: Any,
    room_for: Callable[[int], int | torch.SymInt],
    x: Tensor,
    kernel: Tensor,
    skip: Tensor | None,
) -> Tensor:
    """``long_conv.convolve`` after its checks.

    Args:
        forward: the operator, of x, kernel, skip and the room that what its gradient needs is kept
            in; 0: it is not kept. It returns y and that.
        room_for: of a length.
        x: (B, L, D).
        kernel: (directions, D, K).
        skip: (D,) or None.

    Raises:
        ValueError: a device that Triton does not serve.
    """
    check(x)
    leaves = (x, kernel) if skip is None else (x, kernel, skip)
    keep = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)
    y: Tensor = forward(x, kernel, skip, room_for(x.shape[1]) if keep else 0)[0]
    return y


def front(flat: Tensor, *shape: int) -> Tensor:
    """The beginning of a flat tensor, in this shape."""
    return flat[: math.prod(shape)].view(shape)


def register(forward: Any, backward: Any) -> None:
    """Make ``backward`` the gradient of ``forward``; it has none of its own.

    Args:
        forward: see ``convolve_by``.
        backward: the operator, of dy, the kernel and what was kept; it returns the gradients of x,
            kernel and skip, the last one float32.
    """

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, kernel, skip, _ = inputs
        ctx.skip_dtype = None if skip is None else skip.dtype
        ctx.save_for_backward(kernel, *output[1:])
        ctx.set_materialize_grads(False)

    def gradients(ctx: Any, dy: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return None, None, None, None
        dx, dkernel, dskip = backward(dy, *ctx.saved_tensors)
        return dx, dkernel, None if ctx.skip_dtype is None else dskip.to(ctx.skip_dtype), None

    forward.register_autograd(gradients, setup_context=save)
    backward.register_autograd(no_second_order)
