"""What the baselines with a long convolution share: how it is computed, and how long it may be."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chela.kernels import long_conv
from chela.kernels.choice import Implementation
from chela.kernels.precision import without_autocast
from chela.model.long_kernels import LongKernel


class Convolving(nn.Module):
    """A mixer with one long convolution; ``max_length`` is the longest batch it is built for."""

    operation = "long_conv"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length

    def implementation_in(self, dtype: torch.dtype) -> str:
        """What computes in ``dtype``: the kernels leave float32 and long sequences to the FFT."""
        if self.implementation == "torch":
            return "torch"
        found = long_conv.scheme(self.max_length, 2, dtype)
        return f"triton ({found})" if found == "monarch" else "torch (fft)"

    def convolve(self, h: Tensor, kernel: LongKernel, skip: Tensor | None) -> Tensor:
        """h (B, L, D), zero at padded positions, with the kernel, plus skip (D,) times h.

        Returns:
            (B, L, D) in the dtype of h; not zero at padded positions.

        Raises:
            ValueError: L exceeds max_length.
        """
        length = h.shape[1]
        if length > self.max_length:
            raise ValueError(
                f"a batch of length {length}, but the model was built for max_length="
                f"{self.max_length}; build it with the task's longest length"
            )
        with without_autocast(h):
            taps = kernel(length)  # (directions, D, L)
        return long_conv.convolve(h, taps, skip, implementation=self.implementation)
