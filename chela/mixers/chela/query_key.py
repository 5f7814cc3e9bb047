"""Queries and keys as two affine views of one projection."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels import query_key
from chela.kernels.choice import Implementation
from chela.kernels.tokens import drawback, obstacle
from chela.layers.basic import compute_dtype, linear
from chela.mixers.chela.choices import FeatureMap


class QueryKey(nn.Module):
    """q = scale_q * phi(z Wz) + shift_q and k likewise.

    Mega's shared representation (Ma et al. 2023, eq. 7-9), there in front of softmax attention,
    with the feature map phi in place of its SiLU; there are kernels for SiLU.

    Args:
        dim: channels of z.
        qk_dim: channels of q and of k over all heads.
        feature_map: phi.
    """

    operation = "query_key"
    implementation: Implementation = "torch"  # use_kernels sets it

    def __init__(self, dim: int, qk_dim: int, feature_map: FeatureMap) -> None:
        super().__init__()
        self.feature_map = feature_map
        self.shared = linear(dim, qk_dim)
        # q and k start equal: a symmetric similarity that training then bends. One-dimensional,
        # over all heads: gains and shifts, to which weight decay does not apply.
        self.scale_q, self.scale_k = (nn.Parameter(torch.ones(qk_dim)) for _ in range(2))
        self.shift_q, self.shift_k = (nn.Parameter(torch.zeros(qk_dim)) for _ in range(2))

    @property
    def has_triton(self) -> bool:
        """Whether there are kernels for this feature map."""
        return self.feature_map == "silu"

    def kernel_obstacle(self) -> str | None:
        """Why the kernels cannot serve these channels; None where they can."""
        return obstacle(self.shared.in_features)

    def kernel_drawback(self) -> str | None:
        """Why torch.compile is to be preferred to them; None where they are faster."""
        return drawback(self.shared.in_features, self.shared.out_features)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, L, D) to q and k, (B, L, qk_dim) each."""
        if self.implementation == "triton":
            return query_key.query_key(
                z,
                self.shared.weight,
                self.shared.bias,
                query_key.Affines(self.scale_q, self.shift_q, self.scale_k, self.shift_k),
                dtype=compute_dtype(z),
                implementation="triton",
            )
        u = _FEATURE_MAPS[self.feature_map](self.shared(z))
        q = u * self.scale_q.to(u.dtype) + self.shift_q.to(u.dtype)
        return q, u * self.scale_k.to(u.dtype) + self.shift_k.to(u.dtype)


def _elu1(x: Tensor) -> Tensor:
    return F.elu(x) + 1  # positive everywhere (Katharopoulos et al. 2020)


def _identity(x: Tensor) -> Tensor:
    return x


_FEATURE_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "identity": _identity,
    "elu1": _elu1,
    "relu": F.relu,
}
