"""A long kernel's spectrum at the frequencies where zero padding costs nothing.

A linear convolution needs a transform of length 2 N >= 2 L over real signals. Taken at the odd
frequencies (j + 1/2) / (2 N), whose circular convolution wraps around with a minus sign, half of
the values are the conjugates of the other half, and the even j alone remain: for a signal that is
zero from N on,

    X_j = sum_n x_n exp(-2 pi i (j + 1/4) n / N),       j = 0 .. N - 1,

and y_n = Re (1/N) sum_j K_j X_j exp(2 pi i (j + 1/4) n / N). The kernel is not zero there: lag -l
lies at index 2 N - l and, wrapped, at N - l with a factor i.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def spectrum(kernel: Tensor, skip: Tensor | None, length: int, rows: int, columns: int) -> Tensor:
    """K_j of N = rows * columns >= length lags per direction, as the Triton kernels read it.

    Args:
        kernel: (directions, D, K); taps of ``length`` lags and more are not read.
        skip: (D,), added to the tap of lag 0.
        length: L.
        rows: M.
        columns: C.

    Returns:
        (2, M, C, D) float32, real and imaginary parts; frequency j = f + M g lies at [:, f, g].
    """
    size = rows * columns
    past = kernel[0, :, :length].float()  # lags 0, 1, ...
    if skip is not None:
        past = torch.cat([past[:, :1] + skip.float()[:, None], past[:, 1:]], dim=1)
    future = torch.zeros_like(past)
    if kernel.shape[0] == 2:
        future = kernel[1, :, : length - 1].float()  # lags -1, -2, ...
    past = F.pad(past, (0, size - past.shape[1]))
    future = F.pad(future, (0, size - future.shape[1])).flip(-1)
    folded = torch.complex(past, future) * _quarter_turns(-1, size, kernel.device)  # (D, N)
    values = torch.view_as_real(torch.fft.fft(folded))  # (D, N, 2)
    return values.unflatten(1, (columns, rows)).permute(3, 2, 1, 0).contiguous()


def spectrum_gradient(gradient: Tensor, shape: torch.Size, length: int) -> tuple[Tensor, Tensor]:
    """The gradients of kernel (of ``shape``) and skip, given that of the spectrum (2, M, C, D).

    The adjoint of ``spectrum``: float32 like it, (directions, D, K) and (D,).
    """
    directions, dim, taps = shape
    values = gradient.permute(3, 2, 1, 0).reshape(dim, -1, 2)  # (D, N, 2)
    folded = torch.fft.ifft(torch.view_as_complex(values.contiguous()), norm="forward")
    folded = folded * _quarter_turns(1, folded.shape[1], gradient.device)
    sides = [folded.real[:, :length]]
    if directions == 2:
        sides.append(folded.imag.flip(-1)[:, : length - 1])
    kernel = torch.stack([F.pad(side, (0, taps))[:, :taps] for side in sides])
    return kernel, folded.real[:, 0].contiguous()


def _quarter_turns(sign: int, size: int, device: torch.device) -> Tensor:
    """exp(sign 2 pi i n / 4 N) for n < N, complex64; the angles in float64.

    No ``conj()`` of the one for the other: it is lazy, and lost when AOTAutograd runs an operator.
    """
    angles = torch.arange(size, dtype=torch.float64, device=device) * (sign * math.pi / 2 / size)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
