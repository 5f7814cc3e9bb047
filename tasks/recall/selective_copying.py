"""Selective copying: what stood among blanks is to be said in its order, wherever it stood.

Symbols at random places of a sequence of blanks, then as many signs, each to be answered by the
next symbol (Gu and Dao 2023: length 4,096, 16 symbols to be copied, 16 kinds of them). Which are
to be kept depends on what they are, not on where: a kernel that is the same for all inputs cannot.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from tasks.recall.drawn import BLANK, DrawnAlike, DrawnConfig, Vocabulary, rows_of
from tasks.spec import PositiveInt
from tasks.storage.rows import Rows

SIGN = 1  # where an answer is asked; symbols to be copied follow


@dataclass(frozen=True, kw_only=True, config={"extra": "forbid", "allow_inf_nan": False})
class SelectiveCopyingConfig(DrawnConfig):
    """``configs/task/selective_copying.yaml`` says the same."""

    name: Literal["selective_copying"] = "selective_copying"
    length: PositiveInt = 4096  # of every sample, the signs at its end among them
    copied: PositiveInt = 16  # symbols of a sample to be kept
    vocabulary: Vocabulary = 18  # of the whole: blank, sign, and those to be copied

    def __post_init__(self) -> None:
        if self.length < 2 * self.copied:
            raise ValueError(
                f"length={self.length} has no room for copied={self.copied}; try {2 * self.copied}"
            )


class SelectiveCopying(DrawnAlike):
    """The task of selective copying."""

    version = 1
    Config = SelectiveCopyingConfig
    config: SelectiveCopyingConfig

    @property
    def answers(self) -> int:
        """Each symbol once."""
        return self.config.copied

    def draw(self, count: int, block: int) -> Rows:
        """Symbols at places drawn evenly, the signs at the end."""
        config = self.config
        random = np.random.default_rng((config.data_seed, block))
        free = config.length - config.copied
        numbers = random.random((count, free))
        places = np.sort(np.argpartition(numbers, config.copied - 1)[:, : config.copied], axis=1)
        symbols = random.integers(SIGN + 1, config.vocabulary, (count, config.copied))
        values = np.full((count, config.length), BLANK)
        np.put_along_axis(values, places, symbols, axis=1)
        values[:, free:] = SIGN
        asked = np.broadcast_to(np.arange(free, config.length), symbols.shape)
        return rows_of(values, asked, symbols)
