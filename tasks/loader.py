"""From prepared rows to batches: what a batch is, what reads it, and a run as one pass over them.

Of a run a loader knows the order, which is a law (``tasks.order``), and how many batches it has
handed out: so it can go on anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from tasks.order import TrainOrder
from tasks.padding import pad, widths_for
from tasks.signals import held_back
from tasks.storage.columns import lengths_of, rows_of
from tasks.storage.rows import NOTHING, Rows

Batches = Iterable[list[int]]  # the rows of each


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
        for batch in self._read(self._order.between(self._batches, len(self))):
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
        for rows in self._order:
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


def _as_it_is(batch: Any) -> Any:
    return batch
