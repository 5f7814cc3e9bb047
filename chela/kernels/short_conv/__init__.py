"""Short depthwise convolution over time: each channel with a few taps of its own.

The lag convention: tap j of ``weight`` (D, width) looks ``j - offset`` tokens into the past,

    y[t] = bias + sum_j weight[:, j] x[t - j + offset],

with offset 0 when causal and (width - 1) // 2 when centred; outside the sequence x is zero. The
inputs at padded positions must be zero (``zero_padding``): a centred convolution reads them.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from chela.kernels.choice import Implementation
from chela.kernels.short_conv import eager

__all__ = ["Activation", "convolve"]

Activation = Literal["silu"]


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    causal: bool,
    activation: Activation | None = None,
    implementation: Implementation = "torch",  # runs on every device
) -> Tensor:
    """The convolution above, and SiLU on it if asked for. O(L width).

    Args:
        x: (B, L, D).
        weight: (D, width), lag by lag.
        bias: (D,) or None.
        causal: only the past and the present count; else the taps lie around each token.
        activation: ``silu``, or None for the linear convolution.
        implementation: ``torch``, or ``triton`` for one fused kernel per direction on a GPU: widths
            up to 9, float32 and narrower x, no second-order gradients.

    Returns:
        (B, L, D) in the dtype of x.

    Raises:
        ValueError: weight or bias do not fit x, a centred width is even, or ``implementation`` does
            not serve these arguments.
    """
    if weight.ndim != 2 or x.ndim != 3 or weight.shape[0] != x.shape[-1]:
        raise ValueError(
            f"x {tuple(x.shape)} and weight {tuple(weight.shape)} do not fit; "
            "give x as (B, L, D) and weight as (D, width)"
        )
    width = weight.shape[1]
    if width < 1 or (not causal and width % 2 == 0):
        wanted = "at least 1" if causal else "odd, to lie around a token"
        raise ValueError(f"a kernel of width {width}: make the width {wanted}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias is {tuple(bias.shape)}; give (D,) = ({len(weight)},)")
    if implementation == "torch":
        return eager.convolve(x, weight, bias, causal=causal, activation=activation)
    from chela.kernels.short_conv import fused  # Triton exists on Linux only

    return fused.convolve(x, weight, bias, causal=causal, activation=activation)
