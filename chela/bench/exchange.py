"""What devices that hold sequences together send each other: counted, and the least there could be.

Counted is what the collectives of ``torch.distributed`` are given: of an all-to-all what is for
others, of an all-reduce over P devices 2 (P - 1) / P of its tensor, as a ring of them sends. The
least is what each operation says of itself, see ``Shares`` in ``chela.mixers.over_shares``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch.distributed as dist
from torch import Tensor, nn

from chela.mixers.over_shares import Shares


@dataclass
class Exchanged:
    """Bytes that this process has sent to others."""

    sequences: int = 0  # among those that hold a sequence together
    others: int = 0  # of gradients and of statistics over the batch


@contextmanager
def exchanged() -> Iterator[Exchanged]:
    """Count what this process sends inside."""
    found = Exchanged()
    all_to_all, all_reduce = dist.all_to_all_single, dist.all_reduce

    def counted_all_to_all(
        received: Tensor, sent: Tensor, receives: list[int], sends: list[int], group: Any
    ) -> None:
        found.sequences += (sum(sends) - sends[dist.get_rank(group)]) * sent.element_size()
        all_to_all(received, sent, receives, sends, group)

    def counted_all_reduce(
        value: Tensor, op: Any = dist.ReduceOp.SUM, group: dist.ProcessGroup | None = None
    ) -> None:
        n = dist.get_world_size(group)
        sent = 2 * (n - 1) * value.nbytes // n
        if group is None:
            found.others += sent
        else:
            found.sequences += sent
        all_reduce(value, op, group)

    with patch.multiple(dist, all_to_all_single=counted_all_to_all, all_reduce=counted_all_reduce):
        yield found


def least_of_a_step(model: nn.Module, shares: Shares) -> int:
    """Bytes that all devices together send at least in a forward and a backward pass."""
    parts: list[Any] = [each for each in model.modules() if hasattr(each, "least_exchange")]
    return 2 * sum(part.least_exchange(shares) for part in parts)
