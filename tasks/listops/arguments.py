"""A tree with the arguments of its operators in another order: its value is the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tasks.listops.vocabulary import CLOSE, OPERATOR
from tasks.loader import Batch

DRAWN = 1 << 40  # numbers to draw from; with the place of an argument behind them, no two are alike
LAST = 1 << 62


@dataclass(frozen=True)
class Reordered:
    """Each tree with the arguments of every operator in a random order.

    Args:
        levels: of operators inside each other whose arguments change places, from the root down.
    """

    levels: int

    def __call__(self, batch: Batch) -> Batch:
        """Another form of each tree of a batch (B, L); of one that was cut the same.

        MIN, MAX, MED and SM depend on no order. A symbol's path has, from the root down, a number
        for each argument that it stands in; symbols are sorted by these paths, from the last level
        to the first. Nothing waits for the device.
        """
        symbols, at = batch.values, torch.arange(batch.values.shape[1], device=batch.values.device)
        closes = symbols == CLOSE
        opens = (symbols >= OPERATOR) & ~closes
        level = (opens.long() - closes.long()).cumsum(1) - opens.long()  # (B, L) of those around it
        whole = opens.sum(1, keepdim=True) == closes.sum(1, keepdim=True)
        drawn = torch.randint(DRAWN, symbols.shape, device=symbols.device) * len(at) + at
        beside = (LAST + 1 - closes.long()).masked_fill(opens, -1)  # before arguments, behind them
        order = at.expand_as(symbols)
        for depth in range(self.levels, 0, -1):
            begins = (at * (~closes & (level == depth))).cummax(1).values
            path = torch.where(level >= depth, drawn.gather(1, begins), beside)
            order = order.gather(1, path.gather(1, order).argsort(stable=True, dim=1))
        return batch._replace(values=symbols.gather(1, torch.where(whole, order, at)))
