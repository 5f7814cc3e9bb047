"""The weights of a token-wise MLP."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """Matrices as ``nn.Linear`` has them, (out, in), and biases; w_up and b_up together or not."""

    w_hidden: Tensor  # (H, D)
    b_hidden: Tensor  # (H,)
    w_out: Tensor  # (D, H)
    b_out: Tensor  # (D,)
    w_up: Tensor | None = None  # (H, D)
    b_up: Tensor | None = None  # (H,)

    def check(self, dim: int) -> None:
        """Hold the weights against each other and the D of x.

        Raises:
            ValueError: shapes do not fit, or one of w_up and b_up is missing.
        """
        if (self.w_up is None) != (self.b_up is None):
            raise ValueError("one of w_up and b_up is missing; give both or neither")
        size = self.w_hidden.shape[0]
        expected = {
            "w_hidden": (size, dim),
            "b_hidden": (size,),
            "w_out": (dim, size),
            "b_out": (dim,),
            "w_up": (size, dim),
            "b_up": (size,),
        }
        for name, shape in expected.items():
            tensor = getattr(self, name)
            if tensor is not None and tensor.shape != shape:
                raise ValueError(
                    f"{name} is {tuple(tensor.shape)}; for x with D={dim} and H={size} hidden "
                    f"channels give {shape}"
                )
