"""MQAR: several keys and their values, then each key once more, to be answered by its value.

Multi-query associative recall (Arora et al. 2023). Pairs of a key and a value stand at the front.
Behind them each key comes once more, at places that follow a power law: many soon, few late. The
answer is asked for at the key itself. All other places are blank. (Fillers drawn from the whole
vocabulary, as some generators have them, hold keys that are asked nothing.)
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt, Le
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from tasks.recall.drawn import BLANK, DrawnAlike, DrawnConfig, Vocabulary, rows_of
from tasks.spec import PositiveInt
from tasks.storage.rows import Rows

# Symbols: the blank, the keys up to half of the vocabulary, then the values.


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class MqarConfig(DrawnConfig):
    """``configs/task/mqar.yaml`` says the same."""

    name: Literal["mqar"] = "mqar"
    length: PositiveInt = 64  # of every sample
    pairs: PositiveInt = 4  # of a key and a value; each key is asked once
    vocabulary: Vocabulary = 8192  # of the whole: half keys, half values
    power: Annotated[float, Gt(0), Le(1)] = 0.01  # of the places asked; 1: all are as likely

    def __post_init__(self) -> None:
        if self.length < 4 * self.pairs:
            raise ValueError(
                f"length={self.length} has no room for pairs={self.pairs}; try {4 * self.pairs}"
            )
        if self.vocabulary // 2 - 1 < self.pairs:
            raise ValueError(
                f"vocabulary={self.vocabulary} has not pairs={self.pairs} keys; "
                f"try {2 * self.pairs + 2}"
            )


class Mqar(DrawnAlike):
    """The task of multi-query associative recall."""

    version = 1
    Config = MqarConfig
    config: MqarConfig

    @property
    def answers(self) -> int:
        """Each key is asked once."""
        return self.config.pairs

    def draw(self, count: int, block: int) -> Rows:
        """Pairs at the front, then the keys again."""
        return draw(count, self.config, block)


def draw(count: int, config: MqarConfig, block: int) -> Rows:
    """``count`` samples, from the random stream of a block."""
    random = np.random.default_rng((config.data_seed, block))
    half, pairs = config.vocabulary // 2, config.pairs
    keys = 1 + smallest(random.random((count, half - 1)), pairs)
    answers = half + smallest(random.random((count, config.vocabulary - half)), pairs)
    # Of the places behind the pairs every second: the first of weights w is the least of
    # exponential times with rates w, the next the second least, and so on.
    places = 1 + np.arange(config.length // 2 - pairs)
    times = random.standard_exponential((count, len(places))) / places ** (config.power - 1)
    asked = 2 * (pairs + smallest(times, pairs))
    values = np.full((count, config.length), BLANK)
    values[:, 0 : 2 * pairs : 2], values[:, 1 : 2 * pairs : 2] = keys, answers
    np.put_along_axis(values, asked, keys, axis=1)
    return rows_of(values, asked, answers)


def smallest(numbers: NDArray[Any], n: int) -> NDArray[np.int64]:
    """Where the ``n`` smallest of each row are (rows, n), the smallest first."""
    found = np.argpartition(numbers, n - 1, axis=1)[:, :n]
    order = np.argsort(np.take_along_axis(numbers, found, axis=1), axis=1)
    return np.take_along_axis(found, order, axis=1)
