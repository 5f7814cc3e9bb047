"""MQAR: several keys and their values, then each key once more, to be answered by its value.

Multi-query associative recall (Arora et al. 2023). Pairs of a key and a value stand at the front.
Behind them each key comes once more, at places that follow a power law: many soon, few late. The
answer is asked for at the key itself. All other places are blank. (Fillers drawn from the whole
vocabulary, as some generators have them, hold keys that are asked nothing.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from tasks.base import Task, TaskSpec
from tasks.errors import DataError
from tasks.storage.meta import Origin
from tasks.storage.rows import NOTHING, Rows, split_rows

BLOCK = 1000  # samples drawn at once; part of the law, as each block has its own random stream
BLANK = 0  # symbols: the blank, the keys up to half of the vocabulary, then the values

PositiveInt = Annotated[int, Gt(0)]


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class MqarConfig:
    """``configs/task/mqar.yaml`` says the same."""

    name: Literal["mqar"] = "mqar"
    length: PositiveInt = 64  # of every sample
    pairs: PositiveInt = 4  # of a key and a value; each key is asked once
    vocabulary: Annotated[int, Ge(4), Le(2**16)] = 8192  # of the whole: half keys, half values
    power: Annotated[float, Gt(0), Le(1)] = 0.01  # of the places asked; 1: all are as likely
    num_train: PositiveInt = 100_000
    num_val: PositiveInt = 3_000
    num_test: PositiveInt = 3_000
    data_seed: Annotated[int, Ge(0), Lt(2**63)] = 0  # fixed: runs differ by seed, not by their data

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

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each split."""
        return {"train": self.num_train, "val": self.num_val, "test": self.num_test}


class Mqar(Task):
    """The task of multi-query associative recall."""

    version = 1
    dtype = "uint16"
    Config = MqarConfig
    config: MqarConfig

    @property
    def spec(self) -> TaskSpec:
        """Symbols, and a symbol to be found at some positions."""
        n, length, pairs = self.config.vocabulary, self.config.length, self.config.pairs
        return TaskSpec(self.name, n, length, n, 1, objective="tokens", answers=pairs)

    def origin(self) -> Origin:
        """The law, the seed and the sizes."""
        return Origin(self.name, self.version, "generated", asdict(self.config))

    def rows(self) -> Iterator[tuple[str, Rows]]:
        """The samples, block after block."""
        n = self.expected_rows()
        blocks = (draw(min(BLOCK, n - at), self.config, at) for at in range(0, n, BLOCK))
        return split_rows(blocks, self.config.sizes)

    def expected_rows(self) -> int:
        """The sizes asked for."""
        return sum(self.config.sizes.values())

    def tokens_of(self, text: str) -> NDArray[Any]:
        """Symbols are written as numbers, with blanks between them."""
        try:
            tokens = [int(each) for each in text.split()]
        except ValueError as error:
            raise DataError(f"{error}: symbols are numbers, such as 3 17 0") from error
        for token in tokens:
            if not 0 <= token < self.config.vocabulary:
                raise DataError(
                    f"symbol {token} is unknown: there are 0 to {self.config.vocabulary - 1:,}"
                )
        return np.array(tokens, dtype=np.uint16)

    def sample(self, split: str, index: int) -> str:
        """The symbols; behind a key that is asked stands its answer."""
        row = self.split(split)[index]
        pairs = zip(row["values"], row["targets"], strict=True)
        words = [f"{value}" if asked == NOTHING else f"{value}→{asked}" for value, asked in pairs]
        return " ".join("." if word == str(BLANK) else word for word in words)


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
    values = np.full((count, config.length), BLANK, dtype=np.uint16)
    values[:, 0 : 2 * pairs : 2], values[:, 1 : 2 * pairs : 2] = keys, answers
    np.put_along_axis(values, asked, keys.astype(np.uint16), axis=1)
    targets = np.full((count, config.length), NOTHING, dtype=np.int32)
    np.put_along_axis(targets, asked, answers.astype(np.int32), axis=1)
    rows = Rows.of_matrix(values, np.zeros(count, dtype=np.int64))
    return rows._replace(targets=targets.reshape(-1))


def smallest(numbers: NDArray[Any], n: int) -> NDArray[np.int64]:
    """Where the ``n`` smallest of each row are (rows, n), the smallest first."""
    found = np.argpartition(numbers, n - 1, axis=1)[:, :n]
    order = np.argsort(np.take_along_axis(numbers, found, axis=1), axis=1)
    return np.take_along_axis(found, order, axis=1)
