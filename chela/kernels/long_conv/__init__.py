"""Long depthwise convolution over time: each channel with a kernel as long as the sequence.

    y_t = sum_{l>=0} kernel[0, :, l] x_{t-l}              the present and the past
        + sum_{l>=1} kernel[1, :, l-1] x_{t+l}            the future, if there are two directions
        + skip x_t

Outside the sequence x is zero; taps that reach beyond it take no part, and a kernel shorter than
the sequence ends early. The inputs at padded positions must be zero (``zero_padding``).
The layout of the two directions is our definition; Li et al. 2023 (SGConv) and Fu et al. 2023
compute the same convolution.
"""

from __future__ import annotations

from torch import Tensor

from chela.kernels.choice import Implementation
from chela.kernels.long_conv import eager
from chela.kernels.long_conv.scheme import Scheme, scheme

__all__ = ["Scheme", "convolve", "scheme"]


def convolve(
    x: Tensor,
    kernel: Tensor,
    skip: Tensor | None = None,
    *,
    implementation: Implementation = "torch",  # runs on every device
) -> Tensor:
    """The convolution above.

    Args:
        x: (B, L, D).
        kernel: (directions, D, K), 1 direction when causal, 2 when bidirectional; any K >= 1.
        skip: (D,) or None.
        implementation: ``torch`` takes cuFFT or its like in float32, O(L log L). ``triton`` takes
            what ``scheme`` says: tensor cores for bfloat16 and float16 x up to its MAX_LENGTH, with
            an error before rounding of about 3e-4 of the norm, 1e-3 in three factors, and no
            second-order gradients; else the same FFT as ``torch``.

    Returns:
        (B, L, D) in the dtype of x, accumulated in float32 (float64 for float64 x).

    Raises:
        ValueError: kernel or skip do not fit x, or Triton cannot run on its device.
    """
    if x.ndim != 3 or kernel.ndim != 3 or kernel.shape[1] != x.shape[-1]:
        raise ValueError(
            f"x {tuple(x.shape)} and kernel {tuple(kernel.shape)} do not fit; "
            "give x as (B, L, D) and kernel as (directions, D, K)"
        )
    if kernel.shape[0] not in (1, 2) or kernel.shape[2] < 1:
        raise ValueError(
            f"a kernel {tuple(kernel.shape)}: give 1 direction (causal) or 2, and a tap at least"
        )
    if skip is not None and skip.shape != x.shape[2:]:
        raise ValueError(f"skip is {tuple(skip.shape)}; give (D,) = ({x.shape[2]},)")
    found = scheme(x.shape[1], x.dtype)
    if implementation == "torch" or found == "fft":
        return eager.convolve(x, kernel, skip)
    from chela.kernels.long_conv import deep, monarch  # Triton exists on Linux only

    return (monarch if found == "monarch" else deep).convolve(x, kernel, skip)
