"""What ListOps trees come to: computed, so that labels need not be believed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.listops.generator import Ints, Level, evaluate
from tasks.listops.vocabulary import CLOSE, DIGIT, OPERATOR


def values_of(symbols: NDArray[np.uint8]) -> Ints:
    """The value of each tree (trees,), a digit.

    Args:
        symbols: whole trees one after the other, every operator with an argument.
    """
    is_operator = (symbols >= OPERATOR) & (symbols < CLOSE)
    opened = np.cumsum(is_operator.astype(np.int64) - (symbols == CLOSE))
    is_node = symbols != CLOSE
    nodes, depths = symbols[is_node], (opened - is_operator)[is_node]
    # level after level, each from left to right; numbers of 16 bits are sorted in one pass each
    order = np.argsort(depths.astype(np.uint16), kind="stable")
    bounds = np.searchsorted(depths[order], np.arange(depths.max(initial=0) + 3))
    levels: list[Level] = []
    names: list[Ints] = []
    for start, stop, end in zip(bounds[:-2], bounds[1:-1], bounds[2:], strict=True):
        own, below = nodes[order[start:stop]].astype(np.int64), order[stop:end]
        operators = own >= OPERATOR
        # a node below is an argument of the last operator to its left
        owner = np.searchsorted(order[start:stop][operators], below) - 1
        arguments = np.bincount(owner, minlength=operators.sum())
        levels.append(Level(operators, arguments, np.zeros_like(own)))
        names.append(own - np.where(operators, OPERATOR, DIGIT))
    return evaluate(levels, names)
