"""The specification of queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor

from chela.kernels.query_key.arguments import Affines


def query_key(z: Tensor, weight: Tensor, bias: Tensor, affines: Affines) -> tuple[Tensor, Tensor]:
    """q and k from u = silu(W z + bias); see the package for shapes."""
    pre = torch.einsum("bld,nd->bln", z, weight) + bias
    u = pre * torch.sigmoid(pre)
    return affines.scale_q * u + affines.shift_q, affines.scale_k * u + affines.shift_k
