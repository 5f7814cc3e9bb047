"""Windows of a long sequence: what a model of a language is trained on and tested with.

In training an epoch lays windows one behind the other over the whole of a split, as over a ring,
and no token is a target twice. Where they begin moves from epoch to epoch, by a law that spreads
the cuts evenly, so that over the epochs a token is met at many places of a window. Their order is
that of ``TrainOrder``. The cuts depend on the epoch alone, the order on the seed: what the i-th
sample of a run is, is a pure function of both.

In a test each token but the first is a target exactly once: a window carries ``context`` tokens
that were scored before, then scores the ``length - context`` next ones. The first scores all; the
last begins where it ends with the split, so that no window is padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from tasks.errors import DataError
from tasks.loader import Batch, Batches, Encoding, Reader, Reading
from tasks.resident import as_signed, as_stored
from tasks.samples import Samples
from tasks.storage.columns import lengths_of, stored_rows
from tasks.storage.rows import NOTHING

GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, are spread evenly, however many there are


class Windows(Samples):
    """The windows of a stored split, whose rows are one sequence, one behind the other.

    Args:
        dataset: the stored split.
        length: tokens that a model is given.
        context: of them, those that are not scored but in the first window; None: to train.
        name: of the split, for the message.

    Raises:
        DataError: the split is shorter than a window.
    """

    def __init__(self, dataset: Dataset, length: int, context: int | None, name: str) -> None:
        super().__init__(dataset, Encoding())
        self.length, self.context = length, context
        self.tokens = int(lengths_of(dataset).sum())
        if self.tokens <= length:
            shorter = 1 << max(self.tokens - 1, 1).bit_length() - 1
            raise DataError(
                f"the text has {self.tokens:,} tokens in {name}, no window of {length:,} and the "
                f"token behind it.\n  try: task.length={shorter}, or more text"
            )

    def __len__(self) -> int:
        if self.context is None:
            return self.tokens // self.length
        behind_the_first = self.tokens - 1 - self.length
        return 1 - -behind_the_first // (self.length - self.context)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """That of every window (n,)."""
        return np.full(len(self), self.length, dtype=np.int64)

    @property
    def targets(self) -> int:
        """How many tokens are scored in all; in training, of an epoch."""
        return self.tokens - 1 if self.context is not None else len(self) * self.length

    def places(self, index: Sequence[int]) -> NDArray[np.int64]:
        """Where windows begin, and how many of their tokens are not scored: (2, n).

        Args:
            index: their numbers, see ``Task.endless``.
        """
        number = np.asarray(index, dtype=np.int64)
        if self.context is None:
            epoch, place = np.divmod(number, len(self))
            shift = np.floor(epoch * GOLDEN % 1 * self.length).astype(np.int64)
            return np.stack([(place * self.length + shift) % self.tokens, np.zeros_like(place)])
        stride = self.length - self.context
        start = np.minimum(number * stride, self.tokens - 1 - self.length)
        scored_before = np.where(number > 0, self.length + (number - 1) * stride, 0)
        return np.stack([start, scored_before - start])

    def on_disk(self, num_workers: int = 0, widths: Sequence[int] = ()) -> Reading:
        """What reads them from the file; all have one width."""
        return WindowReader(self, num_workers)

    def on_device(self, device: torch.device) -> Reader:
        """What gathers them from a copy on ``device``."""
        return DeviceWindows(self, device)


class WindowReader(Reading):
    """Reads windows from the memory-mapped file.

    Args:
        windows: of a split.
        num_workers: see ``Reading``.
    """

    def __init__(self, windows: Windows, num_workers: int = 0) -> None:
        super().__init__(num_workers)
        self._windows = windows

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_parts"}

    def __getitems__(self, rows: list[int]) -> Batch:
        """The batch of the given windows."""
        starts, unscored = self._windows.places(rows)
        count = self._windows.length + 1  # the last one is a target only
        tokens = np.stack([self._read(start, count) for start in starts.tolist()])
        return batch_of(torch.from_numpy(tokens), torch.from_numpy(unscored), torch.tensor(rows))

    @cached_property
    def _parts(self) -> list[NDArray[Any]]:
        return [rows.values for rows in stored_rows(self._windows.dataset)]

    def _read(self, start: int, count: int) -> NDArray[np.int64]:
        """``count`` tokens from ``start`` on, over the ring."""
        ends = np.cumsum([len(part) for part in self._parts])
        found: list[NDArray[Any]] = []
        while count:
            which = int(np.searchsorted(ends, start, side="right"))
            piece = self._parts[which][start - ends[which] :][:count]
            found.append(piece)
            start, count = (start + len(piece)) % int(ends[-1]), count - len(piece)
        return np.concatenate(found, dtype=np.int64)


class DeviceWindows:
    """Gathers windows from a copy of the split on a device; the host waits for nothing.

    Args:
        windows: of a split.
        device: where it is kept.
    """

    widths = None  # which nobody needs to know: all windows have the same

    def __init__(self, windows: Windows, device: torch.device) -> None:
        self._windows, self._device = windows, device
        blocks = [as_signed(rows.values).to(device) for rows in stored_rows(windows.dataset)]
        self._tokens = torch.cat(blocks)
        self._ahead = torch.arange(windows.length + 1, device=device)

    def read(self, batches: Batches) -> Iterator[Batch]:
        """The batches of the given windows, in order."""
        return map(self.batch, batches)

    def batch(self, rows: list[int]) -> Batch:
        """The batch of the given windows."""
        host = torch.from_numpy(np.concatenate([self._windows.places(rows), [rows]]))  # (3, B)
        if self._device.type == "cuda":
            host = host.pin_memory()  # else the copy would wait
        starts, unscored, index = host.to(self._device, non_blocking=True)
        places = (starts[:, None] + self._ahead) % len(self._tokens)  # (B, L + 1)
        return batch_of(as_stored(self._tokens[places]).long(), unscored, index)


def batch_of(tokens: Tensor, unscored: Tensor, index: Tensor) -> Batch:
    """A batch of windows, whose targets are the tokens one further.

    Args:
        tokens: (B, L + 1) int64.
        unscored: (B,) how many targets at the front are not asked.
        index: (B,) the windows' numbers.
    """
    count, length = len(tokens), tokens.shape[1] - 1
    asked = torch.arange(length, device=tokens.device) >= unscored[:, None]
    targets = torch.where(asked, tokens[:, 1:], NOTHING)
    lengths = torch.full((count,), length, device=tokens.device)
    return Batch(tokens[:, :-1].contiguous(), lengths, targets, index)
