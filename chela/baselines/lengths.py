"""The length a mixer was built for, where its parameters depend on it."""

from __future__ import annotations

from torch import Tensor


def check_length(x: Tensor, max_length: int) -> None:
    """Refuse a batch (B, L, D) that is longer than ``max_length``.

    Raises:
        ValueError: L exceeds max_length.
    """
    if x.shape[1] > max_length:
        raise ValueError(
            f"a batch of length {x.shape[1]}, but the model was built for max_length="
            f"{max_length}; build it with the task's longest length"
        )
