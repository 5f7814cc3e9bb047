"""The order of training, which is a law, not a state.

It is a pure function of (seed, number of rows, batch size, batch number), and of the lengths where
batches are sorted by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks import bits


@lru_cache(maxsize=4)  # a batch may lie across epochs
def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order of the ``n`` training rows in one epoch (n,); read-only."""
    raw = bits.stream(bits.TRAINING_ORDER, seed, epoch).random_raw(n)
    order = np.argsort(raw, kind="stable")
    order.flags.writeable = False
    return order


def batch_rows(
    seed: int, n: int, batch_size: int, batch: int, endless: bool = False
) -> NDArray[np.int64]:
    """The rows of one training batch (batch_size,).

    Position i of training is row ``permutation(seed, i // n, n)[i % n]``, and batch b takes the
    positions from b * batch_size on: all batches are equally large, none is dropped, and each
    epoch sees each row once, although a batch may begin in one epoch and end in the next. Where
    they are ``endless``, the rows of epoch e have the numbers from e * n on.
    """
    position = np.arange(batch * batch_size, (batch + 1) * batch_size)
    epoch, place = np.divmod(position, n)
    rows = np.empty(batch_size, dtype=np.int64)
    for each in np.unique(epoch):
        rows[epoch == each] = permutation(seed, int(each), n)[place[epoch == each]]
    return rows + epoch * n if endless else rows


class TrainOrder:
    """The batches of training, as lists of rows.

    Args:
        n: rows of the training split.
        batch_size: rows of a batch, over all processes.
        total: batches of the run.
        seed: of the order.
        window: of so many batches in a row the samples are sorted by length, cut into batches
            anew, and these shuffled: less padding. A window ends with the run, but not with an
            epoch, so near an epoch's end a sample may change places with one of the next. 1: no
            sorting.
        lengths: of all rows (n,); needed with a window.
        endless: whether each epoch's rows have numbers of their own, see ``batch_rows``.

    Raises:
        ValueError: no rows.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        total: int,
        seed: int,
        window: int = 1,
        lengths: NDArray[np.int64] | None = None,
        endless: bool = False,
    ) -> None:
        if n == 0:
            raise ValueError("the training split is empty")
        self.n, self.batch_size, self.total, self.seed = n, batch_size, total, seed
        self.window, self.lengths, self.endless = window, lengths, endless
        self._sorted = (-1, np.empty((0, 0), dtype=np.int64))  # the latest window

    def __iter__(self) -> Iterator[list[int]]:
        return self.between(0, self.total)

    def between(self, first: int, end: int) -> Iterator[list[int]]:
        """The rows of batches ``first`` to ``end``, this one not among them."""
        for batch in range(first, end):
            yield self.rows(batch).tolist()

    def rows(self, batch: int) -> NDArray[np.int64]:
        """The rows of one batch (batch_size,)."""
        if self.window == 1 or self.lengths is None:
            return batch_rows(self.seed, self.n, self.batch_size, batch, self.endless)
        number, line = divmod(batch, self.window)
        if self._sorted[0] != number:
            self._sorted = (number, self._sort(number, self.lengths))
        return self._sorted[1][line]

    def _sort(self, number: int, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of window ``number``, a line for each batch (batches, batch_size)."""
        first = number * self.window
        batches = range(first, min(first + self.window, self.total))
        rows = np.concatenate([batch_rows(self.seed, self.n, self.batch_size, b) for b in batches])
        ranked = rows[np.argsort(lengths[rows], kind="stable")].reshape(len(batches), -1)
        raw = bits.stream(bits.WINDOW_ORDER, self.seed, number).random_raw(len(batches))
        return ranked[np.argsort(raw, kind="stable")]
