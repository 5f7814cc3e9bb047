"""The long convolution in plain PyTorch: a product of real Fourier transforms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chela.kernels.precision import accumulation_dtype, without_autocast


def convolve(x: Tensor, kernel: Tensor, skip: Tensor | None = None) -> Tensor:
    """Both directions as one circular kernel: lag l at index l, lag -l at index n - l.

    The transforms run in float32 or float64: cuFFT has no bfloat16. Nothing wraps around, since
    n >= L + (the largest lag in either direction).
    """
    if x.shape[0] == 0:  # MKL refuses an empty batch; its gradients are zeros, not None
        taps = kernel.sum((0, 2)) if skip is None else kernel.sum((0, 2)) + skip
        return x + taps.to(x.dtype)
    length = x.shape[1]
    dtype = accumulation_dtype(x)
    past = kernel[0, :, :length].to(dtype)  # (D, K): lags 0 .. K - 1
    with without_autocast(x):
        if kernel.shape[0] == 1:
            n = fft_size(length + past.shape[-1] - 1)
            circular = past
        else:
            future = kernel[1, :, : length - 1].to(dtype)  # (D, K'): lags -1 .. -K'
            n = fft_size(length + max(past.shape[-1] - 1, future.shape[-1]))
            gap = n - past.shape[-1] - future.shape[-1]
            circular = torch.cat([F.pad(past, (0, gap)), future.flip(-1)], dim=-1)  # (D, n)
        spectrum = torch.fft.rfft(circular, n=n)  # (D, n/2 + 1)
        if skip is not None:
            spectrum = spectrum + skip.to(dtype)[:, None]  # a tap of lag 0 is flat in frequency
        signal = torch.fft.rfft(x.to(dtype).transpose(1, 2), n=n)  # (B, D, n/2 + 1)
        y = torch.fft.irfft(signal * spectrum, n=n)[..., :length]
        return y.transpose(1, 2).to(x.dtype)  # (B, L, D)


def fft_size(minimum: int) -> int:
    """The least 2^k or 3 * 2^k >= ``minimum``: fast in every FFT, and at most a third too long.

    Only two sizes per octave, since each one costs cuFFT a plan and torch.compile a graph, and
    batches come in many lengths.
    """
    size = 2
    while size < minimum:
        size *= 2
    three_quarters = 3 * size // 4
    return three_quarters if three_quarters >= minimum else size
