"""From prepared rows to batches: the order of training, and reading a batch in one query.

The order is a law, not a state: a pure function of (seed, number of rows, batch size, batch
number), and of the lengths where batches are sorted by them. A loader that knows how many batches
it has handed out can therefore go on anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from tasks import bits
from tasks.signals import held_back
from tasks.storage.rows import NOTHING, Rows
from tasks.storage.store import lengths_of, rows_of

# Where a graph is recorded for each width, batches are padded to one of a few: to an eighth more at
# most, or the next multiple. The more widths, the less padding: of what is trained in Text 81 % are
# tokens with the eight multiples of 512, 89 % with steps of a fifth (16 widths) and 91 % with these
# (24), in ListOps 87, 90 and 93 % (6, 8 and 12). A width costs the time of a few steps, once, so
# these pay after half a minute of training; finer ones would not within the minute that Text takes.
# Where each has a program of its own (Mega, deterministic runs) it costs a compilation instead,
# which was not measured for so many.
GROWTH = 9 / 8  # of a width over the one before
MULTIPLE = 16  # tokens; tiles and vector loads like round numbers


class Batch(NamedTuple):
    """What a model is given; padded to the longest of the batch.

    A sample is one sequence, or two that are compared: then the shapes are (B, 2, L) and (B, 2).
    """

    values: Tensor  # (B, L) int64 symbols, or float of a continuous input, (B, L) or (B, L, C)
    lengths: Tensor  # (B,) int64, true lengths in positions
    # (B,) int64, the classes; or (B, L) what is asked at each position, NOTHING where nothing is
    targets: Tensor
    # (B,) int64, the samples' rows in their split: named when something goes wrong
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs of a batch


@dataclass(frozen=True)
class Encoding:
    """How stored rows become what a model takes; picklable, for the reading processes.

    Args:
        values: padded stored numbers (n, W) on any device to values (n, L) or (n, L, C).
        channels: stored numbers per position: L = W / channels.
        documents: sequences of a sample.
        separate: a sample's row to the rows of its ``documents`` sequences; None: it is one.
    """

    values: Callable[[Tensor], Tensor] = Tensor.long  # symbols
    channels: int = 1
    documents: int = 1
    separate: Callable[[Rows], Rows] | None = None

    def sequences(self, rows: Rows) -> Rows:
        """The rows of samples as the rows of their sequences."""
        return rows if self.separate is None else self.separate(rows)

    def read(self, rows: Rows, index: list[int], widths: Sequence[int] = ()) -> Batch:
        """A batch from rows of a split, ``index`` their numbers in it, padded as by ``pad``."""
        sequences = self.sequences(rows)
        lengths = torch.from_numpy(sequences.lengths)
        stored = torch.from_numpy(pad(sequences.values, sequences.lengths, widths))
        asked = rows.labels
        if rows.targets is not None:
            asked = pad(rows.targets, rows.lengths, widths, NOTHING)
        return self.batch(stored, lengths, torch.tensor(asked).long(), torch.tensor(index))

    def batch(self, stored: Tensor, lengths: Tensor, targets: Tensor, index: Tensor) -> Batch:
        """A batch from its padded sequences (B * documents, W) and their stored lengths."""
        values, lengths = self.values(stored), lengths // self.channels
        if self.documents > 1:
            shape = (-1, self.documents)
            values, lengths = values.unflatten(0, shape), lengths.unflatten(0, shape)
        return Batch(values, lengths, targets, index)


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
    """The batches of training from ``first`` on, as lists of rows.

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
        self.first = 0
        self._sorted = (-1, np.empty((0, 0), dtype=np.int64))  # the latest window

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.between(self.first, self.total)

    def __len__(self) -> int:
        return self.total

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


class Batches(Protocol):
    """Rows of batches, and how many batches there are."""

    def __iter__(self) -> Iterator[list[int]]: ...

    def __len__(self) -> int: ...


class Reader(Protocol):
    """Reads batches of a split, wherever its data are."""

    @property
    def widths(self) -> NDArray[np.int64] | None:
        """To how many stored values each sample would be padded alone (n,); a batch to the most.

        None: that is not known before they are read.
        """

    def read(self, batches: Batches) -> Iterator[Batch]:
        """The batches of the given rows, in order."""


class TrainLoader:
    """A whole training run as one pass; its state is the number of batches handed out.

    Processes that share a batch each read all of it, and hand out a part: their parts are then
    padded alike, which steps that are recorded once and replayed together need.

    Lightning saves and restores it with the checkpoint (its protocol of stateful loaders). The
    number is counted where batches are consumed, so that what was read ahead does not count.

    Args:
        reader: of the split.
        order: of its rows.
        rank: whose part of each batch.
        world_size: how many share a batch.

    Raises:
        ValueError: a batch cannot be split.
    """

    def __init__(
        self, reader: Reader, order: TrainOrder, rank: int = 0, world_size: int = 1
    ) -> None:
        if order.batch_size % world_size:
            raise ValueError(
                f"batch_size={order.batch_size} cannot be split over {world_size} devices; "
                f"try {-(-order.batch_size // world_size) * world_size}"
            )
        self._reader = reader
        self._order = order
        size = order.batch_size // world_size
        self._part = slice(rank * size, (rank + 1) * size)
        self._batches = 0
        self._resume_at: int | None = None

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing happens until the first batch is asked for, so that a resume
        # survives iterators that are made and dropped.
        self._batches, self._resume_at = self._resume_at or 0, None
        self._order.first = self._batches
        for batch in self._read(self._order):
            self._batches += 1
            yield batch

    def __len__(self) -> int:
        return self._order.total

    @cached_property
    def first_of_widths(self) -> list[list[int]]:
        """The rows of the first batch of each width in the run; none where they are not known."""
        widths = self._reader.widths
        if widths is None:
            return []
        first: dict[int, list[int]] = {}
        possible = len(np.unique(widths))
        for rows in self._order.between(0, self._order.total):
            first.setdefault(int(widths[rows].max()), rows)
            if len(first) == possible:
                break
        return list(first.values())

    def of_each_width(self) -> Iterator[Batch]:
        """A batch of each width in the run, wherever the pass is: what is recorded at its start."""
        return self._read(self.first_of_widths)

    def latest(self, n: int) -> Iterator[Batch]:
        """The last ``n`` batches handed out, or all if they were fewer, read once more."""
        rows = self._order.between(max(0, self._batches - n), self._batches)
        return self._read(list(rows))

    def _read(self, batches: Batches) -> Iterator[Batch]:
        for batch in self._reader.read(batches):
            yield Batch(*(each[self._part] for each in batch))

    def state_dict(self) -> dict[str, int]:
        """``{"batches": those handed out so far}``."""
        return {"batches": self._batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next pass begins after ``state["batches"]`` batches; later ones at the beginning."""
        self._batches = self._resume_at = state["batches"]


class EvalLoader:
    """Every row once, in order, the last batch as small as it is; the share of one rank."""

    def __init__(
        self, reader: Reader, n: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        rows = range(rank, n, world_size)
        starts = range(0, len(rows), batch_size)
        self._reader = reader
        self._batches = [list(rows[start : start + batch_size]) for start in starts]

    def __iter__(self) -> Iterator[Batch]:
        return self._reader.read(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class Reading(TorchDataset[Batch]):
    """Whole batches of a memory-mapped split: ``__getitems__`` is DataLoader's hook.

    Args:
        num_workers: processes that read ahead; 0: none.
    """

    def __init__(self, num_workers: int = 0) -> None:
        self._num_workers = num_workers

    @property
    def widths(self) -> NDArray[np.int64] | None:
        """See ``Reader``."""
        return None

    def read(self, batches: Batches) -> Iterator[Batch]:
        """The batches of the given rows, in order."""
        loader: DataLoader[Batch] = DataLoader(
            self,
            batch_sampler=batches,
            collate_fn=_as_it_is,
            num_workers=self._num_workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(0),  # not the global one
        )
        with held_back():  # the workers begin here
            return iter(loader)

    def __getitems__(self, rows: list[int]) -> Batch:
        """The batch of the given rows."""
        raise NotImplementedError


class DiskReader(Reading):
    """Reads rows, each of them a sample.

    Args:
        dataset: the prepared split.
        encoding: of its task.
        num_workers: see ``Reading``.
        widths: the lengths to pad to, see ``pad``.
    """

    def __init__(
        self,
        dataset: Dataset,
        encoding: Encoding,
        num_workers: int = 0,
        widths: Sequence[int] = (),
    ) -> None:
        super().__init__(num_workers)
        self._table = dataset.with_format("arrow")
        self._encoding = encoding
        self._widths = widths

    def __len__(self) -> int:
        return len(self._table)

    @property
    def widths(self) -> NDArray[np.int64] | None:
        """See ``Reader``; where a row has several sequences, they are not known."""
        if self._encoding.separate is not None:
            return None
        return widths_for(lengths_of(self._table), self._widths)

    def __getitems__(self, rows: list[int]) -> Batch:
        """The batch of the given rows, from one query of the table."""
        table = self._table[rows].combine_chunks()
        return self._encoding.read(rows_of(table.to_batches()[0]), rows, self._widths)


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


def _as_it_is(batch: Any) -> Any:
    return batch
