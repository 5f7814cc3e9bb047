"""MQAR of many sizes at once: one model is trained on a mixture, and tested on each size apart.

The kinds of samples are pairs of a length and a number of pairs, each drawn as ``mqar`` draws its
own. As they are given here they are those of the set of 2026 (Arora et al. 2023 have a model for
each size): trained on five kinds of up to 256 symbols, tested on seven of up to 1,024.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt, Le, Len
from pydantic import Field
from pydantic.dataclasses import dataclass

from tasks.recall.drawn import BLOCK, Drawn, Vocabulary
from tasks.recall.mqar import MqarConfig, draw
from tasks.spec import PositiveInt, Seed, Sized
from tasks.storage.rows import Rows

Kind = tuple[PositiveInt, PositiveInt]  # length and pairs
Share = tuple[PositiveInt, PositiveInt, PositiveInt]  # the same, and how many samples


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class MqarMixtureConfig(Sized):
    """``configs/task/mqar_mixture.yaml`` says the same."""

    name: Literal["mqar_mixture"] = "mqar_mixture"
    train: Annotated[list[Share], Len(1)] = Field(
        default_factory=lambda: [
            (64, 4, 100_000),
            (128, 8, 20_000),
            (256, 16, 20_000),
            (256, 32, 20_000),
            (256, 64, 20_000),
        ]
    )
    test: Annotated[list[Kind], Len(1)] = Field(
        default_factory=lambda: [
            (64, 4),
            (64, 8),
            (64, 16),
            (128, 32),
            (256, 64),
            (512, 128),
            (1024, 256),
        ]
    )
    num_val: PositiveInt = 200  # of each kind of test
    num_test: PositiveInt = 1_000  # of each
    vocabulary: Vocabulary = 8192  # as of mqar
    power: Annotated[float, Gt(0), Le(1)] = 0.01  # as of mqar
    data_seed: Seed = 0  # fixed: runs differ by seed, not by their data

    def __post_init__(self) -> None:
        pairs = [kind[1] for kind in self.test]
        if twice := sorted({each for each in pairs if pairs.count(each) > 1}):
            raise ValueError(
                f"test has two kinds with {twice[0]} pairs, but its kinds are told by their pairs"
            )
        for kinds in self.drawn.values():
            for length, pairs_of_it, _ in kinds:
                self.mqar(length, pairs_of_it)  # whose own checks are these

    def mqar(self, length: int, pairs: int) -> MqarConfig:
        """What one kind is drawn by."""
        return MqarConfig(
            length=length,
            pairs=pairs,
            vocabulary=self.vocabulary,
            power=self.power,
            data_seed=self.data_seed,
        )

    @property
    def drawn(self) -> dict[str, list[Share]]:
        """The kinds of each split, and their samples."""
        val = [(*kind, self.num_val) for kind in self.test]
        test = [(*kind, self.num_test) for kind in self.test]
        return {"train": self.train, "val": val, "test": test}

    @property
    def length(self) -> int:
        """Of the longest sample."""
        return max(kind[0] for kinds in self.drawn.values() for kind in kinds)

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each split."""
        return {split: sum(kind[2] for kind in kinds) for split, kinds in self.drawn.items()}


class MqarMixture(Drawn):
    """The task of multi-query associative recall in many sizes."""

    version = 1
    Config = MqarMixtureConfig
    config: MqarMixtureConfig

    @property
    def answers(self) -> int:
        """As many as the kind with the most pairs asks."""
        return max(kind[1] for kinds in self.config.drawn.values() for kind in kinds)

    @property
    def kinds(self) -> list[str]:
        """The kinds of validation and test, by their pairs."""
        return [str(pairs) for _, pairs in self.config.test]

    def blocks(self) -> Iterator[Rows]:
        """Kind after kind; a row's label is the number of its kind in the split."""
        first = 0  # row of all, which names the random stream of its block
        for kinds in self.config.drawn.values():
            for label, (length, pairs, samples) in enumerate(kinds):
                config = self.config.mqar(length, pairs)
                for at in range(0, samples, BLOCK):
                    count = min(BLOCK, samples - at)
                    rows = draw(count, config, first)
                    yield rows._replace(labels=np.full(count, label))
                    first += count
