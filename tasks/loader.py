"""From prepared rows to batches: the order of training, and reading a batch in one query.

The order is a law, not a state: a pure function of (seed, number of rows, batch size, batch
number). A loader that knows how many batches it has handed out can therefore go on anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from tasks import bits
from tasks.storage.rows import Rows
from tasks.storage.store import rows_of


class Batch(NamedTuple):
    """What a model is given; padded to the longest of the batch.

    A sample is one sequence, or two that are compared: then the shapes are (B, 2, L) and (B, 2).
    """

    values: Tensor  # (B, L) int64 symbols, or float of a continuous input, (B, L) or (B, L, C)
    lengths: Tensor  # (B,) int64, true lengths in positions
    labels: Tensor  # (B,) int64
    # (B,) int64, the samples' rows in their split: named when something goes wrong
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs of a batch


Encode = Callable[[Rows], tuple[Tensor, Tensor]]  # rows as stored -> a batch's values, lengths


def symbols(rows: Rows) -> tuple[Tensor, Tensor]:
    """Sequences of symbols as the model takes them: int64 (B, L) and lengths (B,)."""
    return torch.from_numpy(pad(rows).astype(np.int64)), torch.from_numpy(rows.lengths)


@lru_cache(maxsize=4)  # a batch may lie across epochs
def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order of the ``n`` training rows in one epoch (n,); read-only."""
    raw = bits.stream(bits.TRAINING_ORDER, seed, epoch).random_raw(n)
    order = np.argsort(raw, kind="stable")
    order.flags.writeable = False
    return order


def batch_rows(seed: int, n: int, batch_size: int, batch: int) -> NDArray[np.int64]:
    """The rows of one training batch (batch_size,).

    Position i of training is row ``permutation(seed, i // n, n)[i % n]``, and batch b takes the
    positions from b * batch_size on: all batches are equally large, none is dropped, and each
    epoch sees each row once, although a batch may begin in one epoch and end in the next.
    """
    position = np.arange(batch * batch_size, (batch + 1) * batch_size)
    epoch, place = np.divmod(position, n)
    rows = np.empty(batch_size, dtype=np.int64)
    for each in np.unique(epoch):
        rows[epoch == each] = permutation(seed, int(each), n)[place[epoch == each]]
    return rows


class TrainOrder:
    """The batches of training from ``first`` on, as lists of rows; the share of one rank."""

    def __init__(
        self, n: int, batch_size: int, total: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if n == 0:
            raise ValueError("the training split is empty")
        if batch_size % world_size:
            raise ValueError(
                f"batch_size={batch_size} cannot be split over {world_size} devices; "
                f"try {-(-batch_size // world_size) * world_size}"
            )
        self.n, self.batch_size, self.total, self.seed = n, batch_size, total, seed
        self.rank, self.world_size = rank, world_size
        self.first = 0

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.first, self.total):
            rows = batch_rows(self.seed, self.n, self.batch_size, batch)
            yield rows[self.rank :: self.world_size].tolist()

    def __len__(self) -> int:
        return self.total


class TrainLoader(DataLoader[Batch]):
    """A whole training run as one pass; its state is the number of batches handed out.

    Lightning saves and restores it with the checkpoint (its protocol of stateful loaders). The
    number is counted where batches are consumed, so that what workers have read ahead does not
    count.
    """

    def __init__(
        self, dataset: Dataset, order: TrainOrder, encode: Encode, num_workers: int = 0
    ) -> None:
        super().__init__(
            BatchReader(dataset, encode),
            batch_sampler=order,
            collate_fn=_as_it_is,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(order.seed),  # not the global one
        )
        self._order = order
        self._batches = 0
        self._resume_at: int | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A generator: nothing happens until the first batch is asked for, so that a resume
        # survives iterators that are made and dropped.
        self._batches, self._resume_at = self._resume_at or 0, None
        self._order.first = self._batches
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def __len__(self) -> int:
        return self._order.total

    def state_dict(self) -> dict[str, int]:
        """``{"batches": those handed out so far}``."""
        return {"batches": self._batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next pass begins after ``state["batches"]`` batches; later ones at the beginning."""
        self._batches = self._resume_at = state["batches"]


def eval_loader(
    dataset: Dataset,
    batch_size: int,
    encode: Encode,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[Batch]:
    """Every row once, in order, the last batch as small as it is; the share of one rank."""
    rows = range(rank, len(dataset), world_size)
    batches = [list(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
    return DataLoader(
        BatchReader(dataset, encode),
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,  # else they start anew with every validation
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),  # not the global one
    )


class BatchReader(TorchDataset[Batch]):
    """A prepared split that hands out whole batches: ``__getitems__`` is DataLoader's hook."""

    def __init__(self, dataset: Dataset, encode: Encode) -> None:
        self._table = dataset.with_format("arrow")
        self._encode = encode

    def __len__(self) -> int:
        return len(self._table)

    def __getitems__(self, rows: list[int]) -> Batch:
        """The batch of the given rows, from one query of the memory-mapped table."""
        table = self._table[rows].combine_chunks()
        found = rows_of(table["values"].chunk(0), table["label"].chunk(0))
        values, lengths = self._encode(found)
        return Batch(
            values=values,
            lengths=lengths,
            labels=torch.tensor(found.labels),
            index=torch.tensor(rows),
        )


def pad(rows: Rows) -> NDArray[Any]:
    """The sequences as an array (B, longest length), zeros behind the end of each."""
    lengths = rows.lengths
    padded = np.zeros((len(lengths), lengths.max()), dtype=rows.values.dtype)  # (B, L)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = rows.values
    return padded


def _as_it_is(batch: Any) -> Any:
    return batch
