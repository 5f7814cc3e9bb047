"""The norm of each token, and a linear map with SiLU of it: the way into a mixer.

    h = n(x),  y = silu(W h + bias)

Both are wanted: the convolutions read h, the attention's values are y. Padded tokens have h = 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chela.kernels.choice import Implementation
from chela.kernels.masking import check_lengths
from chela.kernels.norm_linear import eager
from chela.kernels.tokens import NO_NORM, TokenNorm
from chela.kernels.tokens.limits import check_map

__all__ = ["norm_linear"]


def norm_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    norm: TokenNorm = NO_NORM,
    lengths: Tensor | None = None,
    dtype: torch.dtype | None = None,
    implementation: Implementation = "torch",  # runs on every device
) -> tuple[Tensor, Tensor]:
    """The formula above. O(L D N).

    Args:
        x: (B, L, D).
        weight: (N, D) in any dtype; it is cast as autocast would.
        bias: (N,), likewise.
        norm: n, of each token by itself.
        lengths: (B,) true lengths, None when nothing is padded. Padded x may hold anything.
        dtype: that of the matrix product and of the results, None for that of x.
        implementation: ``torch``, or ``triton`` for one fused kernel per direction on a GPU: D up
            to 512, float32 and narrower x, no second-order gradients.

    Returns:
        h (B, L, D), zero at padded tokens, and y (B, L, N), silu(bias) there.

    Raises:
        ValueError: shapes do not fit together, or ``implementation`` does not serve these
            arguments.
    """
    check_map(x, weight, bias)
    check_lengths(lengths, x)
    norm.check(x.shape[-1])
    dtype = x.dtype if dtype is None else dtype
    if implementation == "torch":
        return eager.norm_linear(x, weight, bias, norm, lengths, dtype)
    from chela.kernels.norm_linear import fused  # Triton exists on Linux only

    return fused.norm_linear(x, weight, bias, norm, lengths, dtype)
