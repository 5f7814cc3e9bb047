"""In which precision an operation computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """The dtype of sums over ``x``: float64 for float64, float32 for everything narrower."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which autocast does not round what an operation keeps in float32."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
