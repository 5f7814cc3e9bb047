"""The matrix every part of the model is built from, and the precision it runs in."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear map with Xavier-uniform weights and zero bias.

    Xavier keeps the variance of activations and gradients alike through the many square-ish maps
    between gates, and needs no knowledge of what follows.
    """
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def compute_dtype(x: Tensor) -> torch.dtype:
    """What linear maps of ``x`` come out as: autocast's dtype where it is on, else that of x.

    The other operations are brought to it by hand, so that a whole block moves narrow activations.
    """
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
