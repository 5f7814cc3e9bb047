"""A long kernel as a tree of ever wider filters that are the same at each scale.

a_0 = delta,   a_{j+1} = a_j * h(2^j),   g_j = a_j * g(2^j),   K = w_J a_J + sum_j w_j g_j

h(2^j) is the low-pass h with 2^j - 1 zeros between its taps, and so is g(2^j) of the high-pass g.
"""

from __future__ import annotations

from torch import Tensor

from chela.kernels.choice import Implementation
from chela.kernels.wavelet_tree import naive

__all__ = ["obstacle", "wavelet_tree"]


def wavelet_tree(
    filters: Tensor,
    weights: Tensor,
    length: int,
    *,
    implementation: Implementation = "torch",  # runs on every device
) -> Tensor:
    """The first taps of K, for each channel and direction.

    Args:
        filters: (2, directions, D, taps): h, then g.
        weights: (directions, D, J + 1): one for each scale, the last for what is left of a_J.
        length: L, no more than the tree reaches: (taps - 1) (2^J - 1) + 1.
        implementation: ``torch``, or ``triton`` for one kernel forward and one backward on a GPU
            (and two sums of parts beyond 4,096 taps): float32, no second-order gradients.

    Returns:
        (directions, D, L).

    Raises:
        ValueError: shapes do not fit together, or ``implementation`` does not serve these
            arguments.
    """
    shapes = tuple(filters.shape), tuple(weights.shape)
    if filters.ndim != 4 or len(filters) != 2 or weights.ndim != 3:
        raise ValueError(f"{shapes}: give (2, directions, D, taps) and (directions, D, J + 1)")
    if shapes[0][1:3] != shapes[1][:2]:
        raise ValueError(f"weights {shapes[1]} are not those of filters {shapes[0]}")
    reach = (shapes[0][3] - 1) * (2 ** (shapes[1][2] - 1) - 1) + 1
    if not 1 <= length <= reach:
        raise ValueError(f"length={length}, but this tree has {reach} taps; give it more scales")
    if implementation == "torch":
        return naive.wavelet_tree(filters, weights, length)
    refused = obstacle(shapes[0][3])
    if refused is not None:
        raise ValueError(f"{refused}; use implementation='torch'")
    from chela.kernels.wavelet_tree import fused  # Triton exists on Linux only

    return fused.wavelet_tree(filters, weights, length)


def obstacle(taps: int) -> str | None:
    """Why filters of so many taps have no Triton form; None where they have one."""
    return None if taps == 2 else f"the Triton kernels serve filters of 2 taps, not of {taps}"
