"""Steps that leave no trace: what compiles and warms up must not train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from chela.training.optim import states


@contextmanager
def put_back(module: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Weights, buffers, the optimizer's state and random numbers are in the end what they were.

    They keep their addresses, which recorded graphs know. A state that the optimizer begins inside
    stays, as it begins: at zero, as those of Adam and Muon do.

    Args:
        module: whose steps are made inside.
        optimizer: of its parameters.
    """
    tensors = [*module.parameters(), *module.buffers()]
    kept = [each.detach().clone() for each in tensors]
    kept_states = {(id(owner), name): x.clone() for owner, name, x in states(optimizer)}
    device = tensors[0].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for each, before in zip(tensors, kept, strict=True):
            each.copy_(before)
        for owner, name, x in states(optimizer):
            x.copy_(kept_states.get((id(owner), name), torch.zeros_like(x)))
    optimizer.zero_grad()
