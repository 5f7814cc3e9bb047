"""What the tasks over pictures share: their samples as pictures, and a user's own ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.base import Task
from tasks.errors import DataError
from tasks.storage.rows import Rows


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
