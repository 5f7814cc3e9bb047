"""The affine maps from the shared projection to queries and keys."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True)
class Affines:
    """q = scale_q * u + shift_q and k = scale_k * u + shift_k; all are (N,)."""

    scale_q: Tensor
    shift_q: Tensor
    scale_k: Tensor
    shift_k: Tensor

    def check(self, features: int) -> None:
        """Hold them against the N of the projection.

        Raises:
            ValueError: one has another shape.
        """
        for field in fields(self):
            shape = tuple(getattr(self, field.name).shape)
            if shape != (features,):
                raise ValueError(f"{field.name} is {shape}; give (N,) = ({features},)")
