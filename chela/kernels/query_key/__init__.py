"""Queries and keys as two affine views of one projection (Ma et al. 2023, eq. 7-9).

    u = silu(W z + bias),  q = scale_q * u + shift_q,  k = scale_k * u + shift_k

Token by token: a padded token disturbs no other, but its z must be finite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chela.kernels.choice import Implementation
from chela.kernels.query_key import eager
from chela.kernels.query_key.arguments import Affines
from chela.kernels.tokens.limits import check_map

__all__ = ["Affines", "query_key"]


def query_key(
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    affines: Affines,
    *,
    dtype: torch.dtype | None = None,
    implementation: Implementation = "torch",  # runs on every device
) -> tuple[Tensor, Tensor]:
    """The formula above. O(L D N).

    Args:
        z: (B, L, D).
        weight: (N, D) in any dtype; it is cast as autocast would.
        bias: (N,), likewise.
        affines: scales and shifts of q and k.
        dtype: that of the matrix product and of the results, None for that of z.
        implementation: ``torch``, or ``triton`` for one fused kernel per direction on a GPU: D up
            to 512, float32 and narrower z, no second-order gradients.

    Returns:
        q and k, (B, L, N) each.

    Raises:
        ValueError: shapes do not fit together, or ``implementation`` does not serve these
            arguments.
    """
    check_map(z, weight, bias)
    affines.check(weight.shape[0])
    dtype = z.dtype if dtype is None else dtype
    if implementation == "torch":
        return eager.query_key(z, weight, bias, affines, dtype)
    from chela.kernels.query_key import fused  # Triton exists on Linux only

    return fused.query_key(z, weight, bias, affines, dtype)
