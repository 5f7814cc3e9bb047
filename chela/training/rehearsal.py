"""Steps that leave no trace: what compiles and warms up must not train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from chela.training.optim import states


@contextmanager
def put_back(module: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Weights, buffers, the optimizer's state and random numbers are in the end what they were.

    They keep their addresses, which recorded graphs know. A state that the optimizer begins inside
    stays, as it begins: at zero, as those of Adam and Muon do.

    The copies are in the host's memory. On a GPU a resumed run would have three times the weights
    beside the largest step, which its first start had room without, and no estimate counts.

    Args:
        module: whose steps are made inside.
        optimizer: of its parameters.
    """
    tensors = [*module.parameters(), *module.buffers()]
    kept = [_on_host(each) for each in tensors]
    kept_states = {(id(owner), name): _on_host(x) for owner, name, x in states(optimizer)}
    device = tensors[0].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for each, before in zip(tensors, kept, strict=True):
            each.copy_(before)
        for owner, name, x in states(optimizer):
            known = kept_states.get((id(owner), name))
            x.zero_() if known is None else x.copy_(known)
    optimizer.zero_grad()


def _on_host(x: Tensor) -> Tensor:
    return x.detach().to("cpu", copy=True)
