"""A call of linear attention with all its options, held against the naive formula in float64."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chela.kernels import linear_attention
from chela.kernels.linear_attention import naive
from tests.kernels.comparison import assert_same

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCES = {torch.bfloat16: 5e-3, torch.float16: 1e-3, torch.float32: 1e-5}

# What a call may have beside q, k and v, each by itself and then all at once.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "state": {"state": True},
    "norm": {"norm": True},
    "gate": {"gate": True},
    "ragged": {"batch": 4, "ragged": True},
    "everything": {"batch": 4, "state": True, "norm": True, "gate": True, "ragged": True},
}


@dataclass(frozen=True)
class Case:
    """One call: sizes, and what is given beside q, k and v."""

    causal: bool
    length: int
    dk: int = 16
    dv: int = 16
    batch: int = 2
    heads: int = 2
    dtype: torch.dtype = torch.float32
    ragged: bool = False
    state: bool = False
    norm: bool = False
    gate: bool = False
    decay: bool = False
    scale: float = 1.0

    def __str__(self) -> str:
        fields = dataclasses.asdict(self) | {"dtype": str(self.dtype).removeprefix("torch.")}
        return "-".join(f"{name}={value}" for name, value in fields.items())

    @property
    def lengths(self) -> Tensor | None:
        full = [self.length, 0, 1, max(1, self.length - 3)]
        picked = [full[i % 4] for i in range(self.batch)]
        return torch.tensor(picked, device=DEVICE) if self.ragged else None

    def leaves(self) -> dict[str, Tensor]:
        """q, k, v and whatever else is given; q and k are not contiguous."""
        torch.manual_seed(self.length)
        shape = (self.batch, self.length, self.heads)
        across = (self.batch, 1 if self.decay else self.heads, self.length)
        tensors = {
            "q": torch.randn(*across, self.dk).transpose(1, 2),
            "k": torch.randn(*across, 2 * self.dk).transpose(1, 2)[..., : self.dk],
            "v": torch.randn(*shape, self.dv),
        }
        if self.norm:
            # A sequence of one token has o = (q k) v, and a norm of that depends on the sign of
            # q k alone: where q and k are nearly orthogonal no precision is enough. Not here.
            tensors["k"][2::4, :1] = tensors["q"][2::4, :1]
        tensors = {name: (x * self.scale).to(self.dtype) for name, x in tensors.items()}
        if self.gate:
            tensors["gate"] = torch.randn(*shape, self.dv).to(self.dtype)
        if self.norm:
            tensors["norm_weight"] = torch.randn(self.dv)
        if self.state:
            scale = self.scale**2
            tensors["initial_state"] = torch.randn(self.batch, self.heads, self.dk, self.dv) * scale
        if self.decay:
            # Of every size, from what forgets nothing to what forgets all at once; but for a norm,
            # since what has forgotten all is like a first token, whose gradient is rounding alone.
            tensors["log_decay"] = -(1 if self.norm else 10) * torch.rand(*shape) ** 8
        return {name: x.to(DEVICE).requires_grad_() for name, x in tensors.items()}


def fused(case: Case, leaves: dict[str, Tensor], lengths: Tensor | None) -> list[Tensor]:
    if case.causal:
        return list(linear_attention.causal(**leaves, lengths=lengths, implementation="triton"))
    return [linear_attention.bidirectional(**leaves, lengths=lengths, implementation="triton")]


def specified(case: Case, leaves: dict[str, Tensor], lengths: Tensor | None) -> list[Tensor]:
    qkv = [leaves[name] for name in ("q", "k", "v")]
    epilogue = (leaves.get("norm_weight"), leaves.get("gate"))
    if case.causal:
        before = leaves.get("initial_state")
        log_decay = leaves.get("log_decay")
        out, state = naive.causal(*qkv, lengths, initial_state=before, log_decay=log_decay)
        return [naive.finish(out, *epilogue), state]
    return [naive.finish(naive.bidirectional(*qkv, lengths), *epilogue)]


def check(case: Case, tolerance: float | None = None) -> None:
    """Output, final state and every gradient against float64."""
    leaves = case.leaves()
    wide = {name: x.detach().double().requires_grad_() for name, x in leaves.items()}
    assert_same(
        fused(case, leaves, case.lengths),
        specified(case, wide, case.lengths),
        list(leaves.values()),
        list(wide.values()),
        tolerance or TOLERANCES[case.dtype],
        leaves,
    )
