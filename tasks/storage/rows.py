"""A stretch of labelled sequences as three flat arrays: the form in which all data travel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NOTHING = -100  # the target where nothing is asked: what cross-entropy ignores


class Rows(NamedTuple):
    """``n`` sequences of any lengths; sequence i is ``values[offsets[i]:offsets[i + 1]]``."""

    values: NDArray[Any]  # (sum of lengths,)
    offsets: NDArray[np.int64]  # (n + 1,), from 0 to len(values)
    labels: NDArray[np.int64]  # (n,) classes; of a task of tokens the kind of sample, or 0
    # (sum of lengths,) what is asked at each position, NOTHING where nothing is; None: the labels
    targets: NDArray[np.int32] | None = None

    @classmethod
    def of_matrix(cls, values: NDArray[Any], labels: NDArray[np.int64]) -> Rows:
        """Sequences of one length, the rows of ``values`` (n, length)."""
        n, length = values.shape
        offsets = np.arange(n + 1, dtype=np.int64) * length
        return cls(values.reshape(-1), offsets, labels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each sequence (n,)."""
        return np.diff(self.offsets)

    def select(self, keep: NDArray[np.bool_]) -> Rows:
        """The sequences where ``keep`` (n,) is true, in order."""
        lengths = self.lengths
        places = np.repeat(keep, lengths)
        targets = None if self.targets is None else self.targets[places]
        return Rows(self.values[places], offsets_of(lengths[keep]), self.labels[keep], targets)

    def slice(self, start: int, stop: int) -> Rows:
        """The sequences start .. stop - 1."""
        first, last = self.offsets[start], self.offsets[stop]
        offsets = self.offsets[start : stop + 1] - first
        targets = None if self.targets is None else self.targets[first:last]
        return Rows(self.values[first:last], offsets, self.labels[start:stop], targets)


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each sequence starts, and where the last one ends (n + 1,)."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def split_rows(blocks: Iterable[Rows], sizes: dict[str, int]) -> Iterator[tuple[str, Rows]]:
    """Deal a stream of rows out to named splits: the first ``sizes[name]`` rows to the first name.

    Args:
        blocks: together ``sum(sizes.values())`` rows, cut anywhere.
        sizes: rows of each split, in order.
    """
    names = list(sizes)
    left = dict(sizes)
    for block in blocks:
        start = 0
        while start < len(block.labels):
            name = next(name for name in names if left[name])
            stop = min(len(block.labels), start + left[name])
            yield name, block.slice(start, stop)
            left[name] -= stop - start
            start = stop
