"""What ListOps trees come to: computed, so that labels need not be believed.

numba compiles on the first call and keeps the result beside this file or in the user's cache; it
looks at no other file, so all that the compiled code needs is in this one.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

# As ``vocabulary`` numbers them; a test compares the two.
DIGIT, MIN, MAX, MED, CLOSE = 3, 13, 14, 15, 17


def values_of(symbols: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The value of each tree (n,), a digit.

    Args:
        symbols: whole trees one after the other, every operator with an argument.
        offsets: where each begins, and the end of the last (n + 1,).
    """
    nesting = np.where(symbols == CLOSE, -1, np.where(symbols >= MIN, 1, 0)).cumsum()
    deepest = int(nesting.max(initial=0))
    return _evaluate(symbols, offsets, np.zeros((deepest + 1, 10), dtype=np.int64))


@njit(cache=True)
def _evaluate(
    symbols: NDArray[np.uint8], offsets: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """``counts`` (deepest + 1, 10): of each open operator how often it has each argument so far."""
    values = np.zeros(len(offsets) - 1, dtype=np.int64)
    operators = np.zeros(len(counts), dtype=np.uint8)
    for tree in range(len(values)):
        depth = 0  # line 0 takes the value of the whole tree
        value = 0
        for place in range(offsets[tree], offsets[tree + 1]):
            symbol = symbols[place]
            if MIN <= symbol < CLOSE:
                depth += 1
                operators[depth] = symbol
                counts[depth] = 0
                continue
            if symbol == CLOSE:
                value = _apply(operators[depth], counts[depth])
                depth -= 1
            else:
                value = symbol - DIGIT
            counts[depth, value] += 1
        values[tree] = value
    return values


@njit(cache=True)
def _apply(operator: int, counts: NDArray[np.int64]) -> int:
    """An operator's result; ``counts`` (10,): how often each digit is an argument of it."""
    n = counts.sum()
    total = least = most = below = above = 0
    seen = 0
    for digit in range(10):
        if counts[digit]:
            if not seen:
                least = digit
            most = digit
            # the middle two of the sorted arguments, the same one twice if their number is odd
            if seen <= (n - 1) // 2:
                below = digit
            if seen <= n // 2:
                above = digit
        seen += counts[digit]
        total += digit * counts[digit]
    if operator == MIN:
        return least
    if operator == MAX:
        return most
    if operator == MED:
        return (below + above) // 2
    return total % 10
