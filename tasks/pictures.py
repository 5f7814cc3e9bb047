"""What the tasks over pictures share: their samples as pictures, and a user's own ones."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.base import Task
from tasks.errors import DataError
from tasks.loader import Batch
from tasks.storage.rows import Rows

Turn = Callable[[Tensor], Tensor]
# Of (B, H, W) or (B, H, W, C): left to right, top to bottom, rows to columns.
TURNS: tuple[Turn, ...] = (lambda x: x.flip(2), lambda x: x.flip(1), lambda x: x.transpose(1, 2))


class PictureTask(Task):
    """A task whose samples are the levels of pictures, pixel by pixel; it has their ``shape``."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, 3)."""

    def sample(self, split: str, index: int) -> NDArray[np.uint8]:
        """One picture, of ``shape``."""
        return np.array(self.split(split)[index]["values"], dtype=np.uint8).reshape(self.shape)

    def own_rows(self, examples: Sequence[NDArray[np.uint8]]) -> Rows:
        """Pictures of ``shape``, levels from 0 to 255.

        Raises:
            DataError: one has another shape or type.
        """
        for picture in examples:
            if picture.shape != self.shape or picture.dtype != np.uint8:
                raise DataError(
                    f"a picture is {picture.dtype} {picture.shape}, but this task's are uint8 "
                    f"{self.shape}.\n  try: Pillow's resize and convert (L is grey), then "
                    "numpy.asarray"
                )
        n = len(examples)
        return Rows.of_matrix(np.stack(examples).reshape(n, -1), np.zeros(n, dtype=np.int64))


def mirrored(batch: Batch) -> Batch:
    """Each picture as it is or mirrored left to right; see ``turned``."""
    return _in_forms(batch, TURNS[:1])


def turned(batch: Batch, which: Tensor | None = None) -> Batch:
    """Each picture in one of the eight forms of a square.

    Args:
        batch: of square pictures, pixel by pixel, (B, L) or (B, L, C).
        which: (B,) bits: 1 left to right, 2 top to bottom, 4 rows to columns, in this order; None:
            drawn on the device.
    """
    return _in_forms(batch, TURNS, which)


def _in_forms(batch: Batch, turns: Sequence[Turn], which: Tensor | None = None) -> Batch:
    if which is None:
        lengths = batch.lengths
        which = torch.randint(1 << len(turns), lengths.shape, device=lengths.device)
    side = math.isqrt(batch.values.shape[1])
    seen = batch.values.unflatten(1, (side, side))  # (B, H, W) or (B, H, W, C)
    for bit, turn in enumerate(turns):
        asked = (which >> bit & 1).bool().view(-1, *[1] * (seen.ndim - 1))
        seen = torch.where(asked, turn(seen), seen)
    return batch._replace(values=seen.flatten(1, 2))
