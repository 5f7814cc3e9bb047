"""Which training images are held out for validation: S4's random tenth, or Tay's last tenth.

S4 shuffles with torch's generator. The law of that shuffle is written out here, so that the split
stays the same whatever a later torch makes of the same seed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["s4", "tay"]

SEED = 42  # S4's
STATE = 624  # words of the Mersenne twister


def held_out(count: int, split: Split) -> NDArray[np.bool_]:
    """Which of the training images, in the order of the files, are the validation split (count,).

    Args:
        count: images; nine tenths of them, rounded down, stay in train.
        split: ``s4``: ``torch.utils.data.random_split`` with seed 42; ``tay``: the last tenth.
    """
    order = shuffled(count, SEED) if split == "s4" else np.arange(count)
    held = np.zeros(count, dtype=np.bool_)
    held[order[count * 9 // 10 :]] = True
    return held


def shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """``torch.randperm(count)`` of a CPU generator with this seed (count,).

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
