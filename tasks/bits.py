"""Random numbers that are the same on every machine, in every process and NumPy version.

NumPy promises the raw stream of a bit generator, not what its distributions make of it; so the
few distributions that the tasks need are made here, from Philox's raw 64-bit words. So is torch's
shuffle, of which torch promises nothing, from the words of its Mersenne twister.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# One number per use, so that no two uses ever share a stream, whatever their seeds.
LISTOPS_TREES = 1
TRAINING_ORDER = 2
WINDOW_ORDER = 3
PATHFINDER = 8
TEXT_HELD_OUT = 31
RFC_NEGATIVES = 41
RFC_SPLITS = 42
CORPUS_SPLITS = 51

STATE = 624  # words of the Mersenne twister


def stream(purpose: int, seed: int, index: int) -> np.random.Philox:
    """The ``index``-th independent stream of ``seed``: random access, no state to carry along.

    Args:
        purpose: one of the constants above.
        seed: 0 <= seed < 2**64.
        index: 0 <= index < 2**64, e.g. a block or an epoch.
    """
    counter = np.array([0, 0, 0, purpose], dtype=np.uint64)  # the stream counts in the low words
    return np.random.Philox(key=np.array([seed, index], dtype=np.uint64), counter=counter)


def high(raw: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The upper 32 bits of each word, as numbers below 2**32."""
    return raw >> np.uint64(32)


def low(raw: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The lower 32 bits of each word, as numbers below 2**32."""
    return raw & np.uint64(0xFFFFFFFF)


def below(word: NDArray[np.uint64], limit: NDArray[np.uint64] | int) -> NDArray[np.int64]:
    """Integers in 0 .. limit - 1, uniform up to limit / 2**32, from 32-bit words.

    Args:
        word: numbers below 2**32, from ``high`` or ``low``.
        limit: one for all, or one for each word; at most 2**32.
    """
    limits = np.asarray(limit, dtype=np.uint64)
    return ((word * limits) >> np.uint64(32)).astype(np.int64)


def shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """``torch.randperm(count)`` of a CPU generator with this seed (count,), in every torch.

    By it S4 splits what has official files, and their splits must stay what they are.
    Fisher and Yates from the front: place i changes with one of the places i .. count - 1, drawn
    as the remainder of the next 32-bit word of MT19937.

    Args:
        count: below 2**31 / 20, above which torch draws 64 bits at a time.
        seed: 0 <= seed < 2**32.
    """
    draws = max(count - 1, 0)
    words = _twister(seed).random_raw(draws)
    step = words % (count - np.arange(draws)).astype(np.uint64)
    order = list(range(count))
    for place, further in enumerate(step.tolist()):
        other = place + further
        order[place], order[other] = order[other], order[place]
    return np.array(order, dtype=np.int64)


def _twister(seed: int) -> np.random.MT19937:
    """MT19937 from one 32-bit number, by the initialisation of its authors, as torch does it."""
    key = [seed]
    for place in range(1, STATE):
        last = key[-1]
        key.append((1812433253 * (last ^ (last >> 30)) + place) & 0xFFFFFFFF)
    twister = np.random.MT19937()
    twister.state = {
        "bit_generator": "MT19937",
        "state": {"key": np.array(key, dtype=np.uint32), "pos": STATE},
    }
    return twister
