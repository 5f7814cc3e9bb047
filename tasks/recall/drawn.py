"""What the tasks of recall share: samples of symbols, drawn block by block from one seed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from tasks.base import Task, TaskSpec
from tasks.errors import DataError
from tasks.spec import PositiveInt, Seed, Sized
from tasks.storage.meta import Origin
from tasks.storage.rows import NOTHING, Rows, split_rows

BLOCK = 1000  # samples drawn at once; part of the law, as each block has its own random stream
BLANK = 0  # the symbol where nothing stands

Vocabulary = Annotated[int, Ge(4), Le(2**16)]  # as many as are told apart where they are stored


@dataclass(frozen=True, kw_only=True, config={"extra": "forbid", "allow_inf_nan": False})
class DrawnConfig(Sized):
    """How much is drawn, and from which seed."""

    name: str
    length: PositiveInt  # of every sample
    vocabulary: Vocabulary  # symbols, the blank among them
    num_train: PositiveInt = 100_000
    num_val: PositiveInt = 3_000
    num_test: PositiveInt = 3_000
    data_seed: Seed = 0  # fixed: runs differ by seed, not by their data


class Drawn(Task):
    """A task of recall; it has ``answers`` and ``blocks``."""

    dtype = "uint16"
    config: Any  # a DrawnConfig

    @property
    @abstractmethod
    def answers(self) -> int:
        """Places of a sample that are asked."""

    @abstractmethod
    def blocks(self) -> Iterator[Rows]:
        """The samples of all splits, at most ``BLOCK`` at once."""

    @property
    def spec(self) -> TaskSpec:
        """Symbols, and a symbol to be found at some positions."""
        n, length = self.config.vocabulary, self.config.length
        return TaskSpec(self.name, n, length, n, 1, objective="tokens", answers=self.answers)

    def origin(self) -> Origin:
        """The law, the seed and the sizes."""
        return Origin(self.name, self.version, "generated", asdict(self.config))

    def rows(self) -> Iterator[tuple[str, Rows]]:
        """The samples, block after block."""
        return split_rows(self.blocks(), self.config.sizes)

    def tokens_of(self, text: str) -> NDArray[Any]:
        """Symbols are written as numbers, with blanks between them."""
        try:
            tokens = [int(each) for each in text.split()]
        except ValueError as error:
            raise DataError("symbols are numbers with blanks between them: 3 17 0") from error
        for token in tokens:
            if not 0 <= token < self.config.vocabulary:
                raise DataError(
                    f"symbol {token} is unknown: there are 0 to {self.config.vocabulary - 1:,}"
                )
        return np.array(tokens, dtype=np.uint16)

    def sample(self, split: str, index: int) -> str:
        """The symbols; behind one that is asked stands its answer."""
        row = self.split(split)[index]
        pairs = zip(row["values"], row["targets"], strict=True)
        words = [f"{value}" if asked == NOTHING else f"{value}→{asked}" for value, asked in pairs]
        return " ".join("." if word == str(BLANK) else word for word in words)


class DrawnAlike(Drawn):
    """A task of recall whose samples are all of one kind; it has ``answers`` and ``draw``."""

    @abstractmethod
    def draw(self, count: int, block: int) -> Rows:
        """``count`` samples, from the random stream of a block."""

    def blocks(self) -> Iterator[Rows]:
        """A block is named by its first sample."""
        n = self.config.total
        return (self.draw(min(BLOCK, n - at), at) for at in range(0, n, BLOCK))


def rows_of(values: NDArray[Any], asked: NDArray[Any], answers: NDArray[Any]) -> Rows:
    """Samples (n, length), of which places (n, k) are asked, to be answered by (n, k)."""
    targets = np.full(values.shape, NOTHING, dtype=np.int32)
    np.put_along_axis(targets, asked, answers.astype(np.int32), axis=1)
    rows = Rows.of_matrix(values.astype(np.uint16), np.zeros(len(values), dtype=np.int64))
    return rows._replace(targets=targets.reshape(-1))
