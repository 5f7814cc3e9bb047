"""Sums of exponentials in plain PyTorch.

Since exp((c W + j) s) = exp(c W s) exp(j s), with W about sqrt(L) the factors have O(N sqrt(L))
numbers per channel, and their product over n is a matrix product. The N x L Vandermonde matrix,
2 GB for 256 channels of Path-X, is never there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def exponential_sums(
    rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor, length: int
) -> Tensor:
    """See the package for shapes."""
    width = math.isqrt(length - 1) + 1  # W: ceil(sqrt(L))
    lags = torch.arange(width, device=rate.device, dtype=rate.dtype)
    fine = _powers(rate, angle, lags)  # (D, N, W): j from 0 to W - 1
    coarse = torch.complex(real, imag)[..., None] * _powers(rate, angle, width * lags)
    # Re(a b) = Re a Re b - Im a Im b, as one real product over 2 N.
    left = torch.cat([coarse.real, -coarse.imag], dim=-2).mT  # (K, D, W, 2 N)
    right = torch.cat([fine.real, fine.imag], dim=-2)  # (D, 2 N, W)
    return (left @ right).flatten(-2)[..., :length]


def _powers(rate: Tensor, angle: Tensor, lags: Tensor) -> Tensor:
    """exp(l (rate + i angle)), (D, N, W) complex."""
    # In float64 until whole turns are off: float32 knows thousands of radians to a thousandth.
    turned = (angle[..., None].double() * lags).remainder(2 * math.pi).to(angle.dtype)
    return torch.polar((rate[..., None] * lags).exp(), turned)
