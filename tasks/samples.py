"""A split as a model meets it: how many samples, of what length, and what reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from tasks.loader import DiskReader, Encoding, Reader, Reading
from tasks.resident import DeviceReader
from tasks.storage.columns import lengths_of, targets_of


class Samples:
    """Each row is a sample.

    Args:
        dataset: the stored split.
        encoding: of its task.
    """

    def __init__(self, dataset: Dataset, encoding: Encoding) -> None:
        self.dataset, self.encoding = dataset, encoding

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many stored values each sample has (n,)."""
        return lengths_of(self.dataset)

    @property
    def targets(self) -> int:
        """How many targets are asked for in all."""
        return targets_of(self.dataset)

    def on_disk(self, num_workers: int = 0, widths: Sequence[int] = ()) -> Reading:
        """What reads batches from the file; see ``DiskReader``."""
        return DiskReader(self.dataset, self.encoding, num_workers, widths)

    def on_device(self, device: torch.device) -> Reader:
        """What gathers batches from a copy on ``device``."""
        return DeviceReader(self.dataset, self.encoding, device)
