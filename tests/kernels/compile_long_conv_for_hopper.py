"""Compile the long convolution's kernels for a Hopper GPU without one; a script."""

from __future__ import annotations

import torch
from compile_for_hopper import compile_launches_of

from chela.kernels.long_conv import deep, monarch


def both_directions(batch: int, length: int, dim: int, directions: int) -> None:
    """Forward and backward at the cut of a length; its memory is never touched."""
    short = length <= 16384
    x = torch.empty(batch, length, dim, dtype=torch.bfloat16)
    kernel, skip = torch.empty(directions, dim, length), torch.empty(dim)
    form = monarch if short else deep
    y, *kept = form._forward(x, kernel, skip, form.room_for(length))
    form._backward(y, kernel, *kept)


def main() -> None:
    both_directions(1, 64, 40, 2)
    both_directions(1, 1024, 320, 2)
    both_directions(1, 4096, 128, 2)
    for length in (20000, 65536, 131072, 1 << 20):
        both_directions(3, length, 128, 2)
    both_directions(1, 20000, 40, 1)


if __name__ == "__main__":
    compile_launches_of(main)
