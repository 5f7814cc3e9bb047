"""Which algorithm ``implementation="triton"`` takes, for the caller to print."""

from __future__ import annotations

from typing import Literal

import torch

Scheme = Literal["monarch", "deep monarch", "fft"]

TWO_FACTORS = 16384  # as far as two are dense products of a tensor core's size
MAX_LENGTH = 1 << 20  # as far as three were tested


def scheme(length: int, dtype: torch.dtype) -> Scheme:
    """``monarch`` and, in three factors, ``deep monarch`` for matrix products on tensor cores.

    And ``fft`` for the FFT of plain PyTorch.

    Args:
        length: tokens L.
        dtype: of the activations; tensor cores have no exact float32.
    """
    narrow = dtype in (torch.bfloat16, torch.float16)
    if not narrow or not 0 < length <= MAX_LENGTH:
        return "fft"
    return "monarch" if length <= TWO_FACTORS else "deep monarch"
