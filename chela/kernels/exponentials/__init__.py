"""A long kernel as a sum of decaying oscillations: the taps of state spaces and of moving averages.

K_l = sum_n Re[(real_n + i imag_n) exp(l (rate_n + i angle_n))],   l = 0 .. L - 1
"""

from __future__ import annotations

from torch import Tensor

from chela.kernels.choice import Implementation
from chela.kernels.exponentials import eager

__all__ = ["exponential_sums"]


def exponential_sums(
    rate: Tensor,
    angle: Tensor,
    real: Tensor,
    imag: Tensor,
    length: int,
    *,
    implementation: Implementation = "torch",  # runs on every device
) -> Tensor:
    """The formula above for each channel and direction. O(N L), or O(N sqrt(L)) exponentials.

    Args:
        rate: (D, N), per tap, not positive.
        angle: (D, N), radians per tap.
        real: (K, D, N), of the amplitudes of K directions, which share rates and angles.
        imag: (K, D, N).
        length: L.
        implementation: ``torch``, or ``triton`` for one kernel forward and two backward on a GPU:
            float32, no second-order gradients.

    Returns:
        (K, D, L).

    Raises:
        ValueError: shapes do not fit together, or ``implementation`` does not serve these
            arguments.
    """
    shapes = [tuple(each.shape) for each in (rate, angle, real, imag)]
    if rate.ndim != 2 or shapes[0] != shapes[1] or real.ndim != 3 or shapes[2] != shapes[3]:
        raise ValueError(f"{shapes}: give rate and angle as (D, N), real and imag as (K, D, N)")
    if shapes[2][1:] != shapes[0]:
        raise ValueError(f"amplitudes {shapes[2]} are not those of rates {shapes[0]}")
    if implementation == "torch":
        return eager.exponential_sums(rate, angle, real, imag, length)
    from chela.kernels.exponentials import fused  # Triton exists on Linux only

    return fused.exponential_sums(rate, angle, real, imag, length)
