"""What the tasks over pictures share: a user's own pictures as rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.storage.rows import Rows


def rows_of(pictures: Sequence[NDArray[np.uint8]], shape: tuple[int, ...]) -> Rows:
    """Pictures without labels (all are 0) as rows, pixel by pixel.

    Args:
        pictures: one at least, each of ``shape``, levels from 0 to 255.
        shape: (H, W) or (H, W, 3).

    Raises:
        DataError: a picture has another shape or type.
    """
    for picture in pictures:
        if picture.shape != shape or picture.dtype != np.uint8:
            raise DataError(
                f"a picture is {picture.dtype} {picture.shape}, but this task's are uint8 {shape}."
                "\n  try: Pillow's resize and convert (L is grey), then numpy.asarray"
            )
    n = len(pictures)
    return Rows.of_matrix(np.stack(pictures).reshape(n, -1), np.zeros(n, dtype=np.int64))
