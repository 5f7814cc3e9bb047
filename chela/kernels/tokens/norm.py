"""The normalisation of a token by itself, as an argument of the token-wise operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from chela.kernels.precision import accumulation_dtype

NormKind = Literal["none", "affine", "layer", "rms"]


@dataclass(frozen=True)
class TokenNorm:
    """n(x) for x (..., D), computed in float32 or better.

    ``none`` is x itself, ``affine`` x * weight + bias (what BatchNorm is once its statistics are
    known), ``layer`` has mean 0 and variance 1 before that map, ``rms`` root mean square 1.
    """

    kind: NormKind = "none"
    weight: Tensor | None = None  # (D,), for all kinds but none
    bias: Tensor | None = None  # (D,), optional
    eps: float = 0.0  # beside the variance or mean square

    def __post_init__(self) -> None:
        if (self.kind == "none") != (self.weight is None):
            raise ValueError(
                f"a norm of kind {self.kind!r} {'without' if self.weight is None else 'with'} a "
                "weight; give a weight (D,) to affine, layer and rms, and none to none"
            )

    def check(self, dim: int) -> None:
        """Hold weight and bias against the D of x.

        Raises:
            ValueError: they have another shape.
        """
        for name, vector in (("weight", self.weight), ("bias", self.bias)):
            if vector is not None and vector.shape != (dim,):
                raise ValueError(f"the norm's {name} is {tuple(vector.shape)}; give ({dim},)")

    def eager(self, x: Tensor) -> Tensor:
        """The norm by PyTorch's own functions, in the wide dtype."""
        wide = x.to(accumulation_dtype(x))
        weight = None if self.weight is None else self.weight.to(wide.dtype)
        bias = None if self.bias is None else self.bias.to(wide.dtype)
        if self.kind == "layer":
            return F.layer_norm(wide, x.shape[-1:], weight, bias, self.eps)
        if self.kind == "rms":
            wide = F.rms_norm(wide, x.shape[-1:], weight, self.eps)
        elif weight is not None:
            wide = wide * weight
        return wide if bias is None else wide + bias

    def naive(self, x: Tensor) -> Tensor:
        """The specification."""
        n = x
        if self.kind == "layer":
            n = n - n.mean(-1, keepdim=True)
        if self.kind in ("layer", "rms"):
            n = n / torch.sqrt((n * n).mean(-1, keepdim=True) + self.eps)
        if self.weight is not None:
            n = n * self.weight
        return n if self.bias is None else n + self.bias


NO_NORM = TokenNorm()
