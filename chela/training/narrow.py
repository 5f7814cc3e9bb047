"""Weights in autocast's dtype, cast once per step instead of one by one.

Autocast casts each weight of a linear map by a launch of its own, and its gradient back by another;
with compiled blocks too. Here one operation casts all of them, and the gradients come back as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class NarrowWeights:
    """Narrow copies of weights and biases of linear maps, which stand in for them in a step.

    Kernels that are handed a linear map's weights cast them themselves, and add up gradients in
    float32: these are left alone.

    Args:
        inside: the modules among which linear maps are looked for.
        dtype: of the copies.
    """

    def __init__(self, inside: nn.Module, dtype: torch.dtype) -> None:
        owners = (m for m in inside.modules() if getattr(m, "implementation", "torch") == "torch")
        linear = [each for m in owners for each in m.children() if type(each) is nn.Linear]
        self._places = [
            (each, name)
            for each in linear
            for name, weight in each.named_parameters()
            if weight.requires_grad
        ]
        self._wide: list[Tensor] = [each.get_parameter(name) for each, name in self._places]
        self._narrow: list[Tensor] = [nn.Parameter(each.detach().to(dtype)) for each in self._wide]

    def __bool__(self) -> bool:
        return bool(self._wide)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Compute forward and backward of a step with them; the weights get the gradients."""
        with torch.no_grad():
            torch._foreach_copy_(self._narrow, self._wide)
        for each in self._narrow:
            each.grad = None
        try:
            self._stand_in(self._narrow)
            yield
        finally:
            self._stand_in(self._wide)
        found: list[tuple[Tensor, Tensor]] = [
            (wide, narrow.grad)
            for wide, narrow in zip(self._wide, self._narrow, strict=True)
            if narrow.grad is not None
        ]
        if not found:  # none of them had a part in the step
            return
        gradients = torch.cat([each.flatten() for _, each in found]).float()
        parts = gradients.split([each.numel() for _, each in found])
        for (wide, _), part in zip(found, parts, strict=True):
            wide.grad = part.view_as(wide)

    def _stand_in(self, values: list[Tensor]) -> None:
        for (module, name), value in zip(self._places, values, strict=True):
            module._parameters[name] = value  # type: ignore[assignment]
