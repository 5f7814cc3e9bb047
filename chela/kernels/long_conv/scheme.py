"""Which algorithm ``implementation="triton"`` takes, for the caller to print."""

from __future__ import annotations

from typing import Literal

import torch

Scheme = Literal["monarch", "fft"]

MAX_LENGTH = 16384  # as far as it was measured: 4.6 times the FFT's speed there, and falling


def scheme(length: int, directions: int, dtype: torch.dtype) -> Scheme:
    """``monarch`` for matrix products on tensor cores, ``fft`` for the FFT of plain PyTorch.

    Args:
        length: tokens L.
        directions: 1 or 2; both take the same time in either scheme.
        dtype: of the activations; tensor cores have no exact float32.

    Raises:
        ValueError: another number of directions.
    """
    if directions not in (1, 2):
        raise ValueError(f"directions={directions}: give 1 (causal) or 2 (bidirectional)")
    narrow = dtype in (torch.bfloat16, torch.float16)
    return "monarch" if narrow and 0 < length <= MAX_LENGTH else "fft"
