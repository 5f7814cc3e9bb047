"""To which lengths batches are padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Where a graph is recorded for each width, batches are padded to one of a few: to an eighth more at
# most, or the next multiple. The more widths, the less padding: of what is trained in Text 81 % are
# tokens with the eight multiples of 512, 89 % with steps of a fifth (16 widths) and 91 % with these
# (24), in ListOps 87, 90 and 93 % (6, 8 and 12). A width costs the time of a few steps, once, so
# these pay after half a minute of training; finer ones would not within the minute that Text takes.
# Where each has a program of its own (Mega, deterministic runs) it costs a compilation instead,
# which was not measured for so many.
GROWTH = 9 / 8  # of a width over the one before
MULTIPLE = 16  # tokens; tiles and vector loads like round numbers


def widths_up_to(longest: int) -> list[int]:
    """A few lengths to pad to, ascending, the last one ``longest``: a step is recorded of each."""
    widths = [longest]
    while (width := widths[-1]) > MULTIPLE:
        below = -(-width // (GROWTH * MULTIPLE)) * MULTIPLE
        widths.append(int(min(below, (width - 1) // MULTIPLE * MULTIPLE)))
    return widths[::-1]


def widths_for(lengths: NDArray[np.int64], widths: Sequence[int]) -> NDArray[np.int64]:
    """For each length the first of ``widths``, ascending, that holds it; or itself."""
    place = np.searchsorted(widths, lengths)
    return np.where(place < len(widths), np.array([*widths, 0])[place], lengths)


def pad(
    flat: NDArray[Any], lengths: NDArray[np.int64], widths: Sequence[int] = (), fill: int = 0
) -> NDArray[Any]:
    """Sequences (sum of lengths,) as an array (B, L), ``fill`` behind the end of each.

    L is the first of ``widths`` that holds the longest sequence; without any its own length.
    """
    width = int(widths_for(lengths.max(), widths))
    padded = np.full((len(lengths), width), fill, dtype=flat.dtype)  # (B, L)
    padded[np.arange(width) < lengths[:, None]] = flat
    return padded
