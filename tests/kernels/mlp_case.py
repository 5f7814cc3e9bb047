"""A call of the token-wise MLP with any of its parts, held against the naive formula."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chela.kernels.token_mlp import Weights, mlp, naive
from tests.kernels import token_cases
from tests.kernels.token_cases import TOLERANCES

PARTS = ["mlp", "glu", "gate", "gate-alone"]  # what of a block it is


def case(
    part: str,
    norm: str = "none",
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    length: int = 21,
    dim: int = 20,
    hidden: int = 40,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """The leaves; x is not contiguous."""
    torch.manual_seed(length * 100 + dim)
    leaves = {
        "x": torch.randn(batch, dim, length).mT * scale,
        "w_hidden": torch.randn(hidden, dim) * dim**-0.5,
        "b_hidden": torch.randn(hidden),
        "w_out": torch.randn(dim, hidden) * hidden**-0.5,
        "b_out": torch.randn(dim),
        **token_cases.norm_leaves(norm, dim),
    }
    if part == "glu":
        leaves |= {"w_up": torch.randn(hidden, dim) * dim**-0.5, "b_up": torch.randn(hidden)}
    if part.startswith("gate"):
        leaves["factor"] = torch.randn(batch, length, 2 * hidden)[..., ::2]
    if part == "gate":
        leaves["residual"] = torch.randn(batch, length, dim) * scale
    return token_cases.prepared(leaves, dtype)


def arguments(part: str, norm: str, leaves: dict[str, Tensor]) -> dict[str, Any]:
    """The leaves as arguments of ``mlp``."""
    names = [name for name in leaves if name[:2] in ("w_", "b_")]
    return {
        "x": leaves["x"],
        "weights": Weights(**{name: leaves[name] for name in names}),
        "norm": token_cases.norm_of(norm, leaves),
        "factor": leaves.get("factor"),
        "residual": leaves.get("residual"),
        "add_x": not part.startswith("gate"),
    }


def check(part: str, norm: str, leaves: dict[str, Tensor], **options: Any) -> None:
    lengths = options.pop("lengths", None)
    tolerance = options.pop("tolerance", None) or TOLERANCES[leaves["x"].dtype]
    options = {"implementation": "triton", **options}
    token_cases.check(
        lambda t: [mlp(**arguments(part, norm, t), lengths=lengths, **options)],
        lambda t: [naive.mlp(**arguments(part, norm, t), lengths=lengths)],
        leaves,
        tolerance,
    )
