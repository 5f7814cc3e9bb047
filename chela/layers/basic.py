"""What every part of the model is built from: matrices, dropout, and the precision they run in."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from chela.kernels.dropout import dropout

Rate = Annotated[float, Ge(0), Lt(1)]  # of dropout


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear map with Xavier-uniform weights and zero bias.

    Xavier keeps the variance of activations and gradients alike through the many square-ish maps
    between gates, and needs no knowledge of what follows.
    """
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Dropout(nn.Dropout):
    """Dropout of (B, L, C) in training; ``tied``: of whole channels of a sequence.

    ``Backbone`` sets ``tied`` on all of a model's, as its configuration says.
    """

    tied = False

    @property
    def rate(self) -> float:
        """The probability in force: 0 in evaluation."""
        return self.p if self.training else 0.0

    def split_obstacle(self) -> str | None:
        """Why its tokens cannot be those of several devices, and what to do; None: they can."""
        if self.tied and self.p > 0:
            return "tied dropout draws once for all tokens of a sequence; set tie_dropout=false"
        return None

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) to (B, L, C)."""
        return dropout(x, self.p, self.tied) if self.training else x


def compute_dtype(x: Tensor) -> torch.dtype:
    """What linear maps of ``x`` come out as: autocast's dtype where it is on, else that of x.

    The other operations are brought to it by hand, so that a whole block moves narrow activations.
    """
    device = x.device.type
    if x.is_meta or not torch.is_autocast_enabled(device):  # meta has no autocast to ask for
        return x.dtype
    return torch.get_autocast_dtype(device)
