"""A prepared split that lies on the GPU: batches are gathered there, the host sends row numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from tasks.loader import Batch, Batches, Encoding
from tasks.padding import widths_for, widths_up_to
from tasks.storage.columns import stored_rows
from tasks.storage.rows import NOTHING


class DeviceReader:
    """The same batches as ``DiskReader``'s but for padding: to the next of a few widths.

    Args:
        dataset: the prepared split.
        encoding: of its task.
        device: where it is kept.
    """

    def __init__(self, dataset: Dataset, encoding: Encoding, device: torch.device) -> None:
        self._encoding = encoding
        self._device = device
        blocks = [encoding.sequences(rows) for rows in stored_rows(dataset)]
        self._values = torch.cat([as_signed(rows.values).to(device) for rows in blocks])  # (all,)
        lengths = np.concatenate([rows.lengths for rows in blocks])  # (n documents,)
        self._labels = torch.from_numpy(np.concatenate([rows.labels for rows in blocks])).to(device)
        asked = [rows.targets for rows in blocks if rows.targets is not None]
        self._targets = torch.from_numpy(np.concatenate(asked)).to(device) if asked else None
        longest = int(lengths.max())
        alone = widths_for(lengths, widths_up_to(longest))
        self.widths = alone.reshape(-1, encoding.documents).max(1)  # (n,), see ``Reader``
        self._lengths = torch.from_numpy(lengths).to(device)
        self._starts = self._lengths.cumsum(0) - self._lengths  # (n documents,)
        self._places = torch.arange(longest, device=device)

    def read(self, batches: Batches) -> Iterator[Batch]:
        """The batches of the given rows, in order."""
        return map(self.batch, batches)

    def batch(self, rows: list[int]) -> Batch:
        """The batch of the given rows; the host waits for nothing."""
        documents = self._encoding.documents
        host = torch.tensor(rows)
        width = int(self.widths[rows].max())
        if self._device.type == "cuda":
            host = host.pin_memory()  # else the copy would wait
        index = host.to(self._device, non_blocking=True)  # (B,)
        which = (index[:, None] * documents + self._places[:documents]).flatten()
        places, lengths = self._places[:width], self._lengths[which]
        position = self._starts[which, None] + places  # (B documents, W)
        position = position.clamp(max=len(self._values) - 1)
        stored = as_stored(self._values[position])
        real = places < lengths[:, None]
        stored = torch.where(real, stored, 0)
        targets = self._labels[index]
        if self._targets is not None:
            targets = torch.where(real, self._targets[position], NOTHING).long()
        return self._encoding.batch(stored, lengths, targets, index)


def as_signed(values: NDArray[Any]) -> Tensor:
    """Stored numbers in a type that a GPU gathers: uint16 as int16 of the same bits."""
    values = values.copy()  # Arrow's memory cannot be written, which torch does not like
    return torch.from_numpy(values.view(np.int16) if values.dtype == np.uint16 else values)


def as_stored(gathered: Tensor) -> Tensor:
    """What ``as_signed`` made of stored numbers as these numbers again."""
    return gathered.int() & 0xFFFF if gathered.dtype == torch.int16 else gathered
