"""Rows that are not what their task says of itself are refused before a model meets them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.base import Task, TaskSpec
from tasks.errors import DataError
from tasks.loader import Encoding
from tasks.spec import Objective
from tasks.storage.meta import Origin
from tasks.storage.rows import NOTHING, Rows


@dataclass(frozen=True)
class OwnConfig:
    """The name alone."""

    name: str = "own"


class Own(Task):
    """Rows of three values; test has one that a test of this file puts there."""

    version = 1
    Config = OwnConfig
    objective: Objective = "classification"
    targets: list[int] | None = None
    values: list[Any] = [1, 2, 3]  # noqa: RUF012
    label = 1

    @property
    def spec(self) -> TaskSpec:
        symbols = 4 if self.dtype == "uint8" else None
        return TaskSpec(self.name, 2, 3, symbols, input_dim=1, objective=self.objective)

    @property
    def encoding(self) -> Encoding:
        return Encoding() if self.dtype == "uint8" else Encoding(lambda stored: stored)

    def origin(self) -> Origin:
        return Origin(self.name, self.version, "own", {})

    def rows(self) -> Iterator[tuple[str, Rows]]:
        good, values = [1, 2, 3], np.array
        for split in ("train", "val", "test"):
            last = self.values if split == "test" else good
            stored = values([*good, *good, *last]).astype(self.dtype)
            offsets = values([0, 3, 6, 6 + len(last)])
            targets = None
            if self.targets is not None:
                last = self.targets if split == "test" else [0, 1, NOTHING]
                targets = values([0, 1, NOTHING, 0, 1, NOTHING, *last]).astype(np.int32)
            labels = values([0, 1, self.label if split == "test" else 1])
            yield split, Rows(stored, offsets, labels, targets)

    def sample(self, split: str, index: int) -> str:
        return str(self.split(split)[index]["values"])


WRONG = [
    ({"values": [1, 4, 3]}, "the symbol 4, but vocab_size=4 allows 0 to 3"),
    ({"values": [1, 1, 1, 1]}, "the length 4, but max_length=3"),
    ({"label": 2}, "the label 2, but num_classes=2 allows 0 to 1"),
    ({"objective": "tokens", "targets": [0, 2, 0]}, "the target 2, but num_classes=2"),
    ({"objective": "tokens", "targets": [0, -1, 0]}, "the target -1, but num_classes=2"),
    ({"dtype": "float32", "values": [1, np.nan, 3]}, "the value nan"),
    ({"dtype": "float32", "values": [1, -np.inf, 3]}, "the value -inf"),
]
RIGHT = [
    {},
    {"values": [0, 3, 3]},
    {"values": []},
    {"objective": "tokens", "targets": [0, 1, NOTHING], "label": 7},  # a kind of sample
    {"dtype": "float32", "values": [1, 1e30, -1e30]},
]


def prepared(folder: Path, changes: dict[str, Any]) -> Task:
    task = type("Changed", (Own,), changes)(OwnConfig(), folder)
    task.prepare_data(show=False)
    return task


@pytest.mark.parametrize(("changes", "why"), WRONG)
def test_a_row_that_does_not_fit_is_named(changes: dict, why: str, tmp_path: Path) -> None:
    task = prepared(tmp_path, changes)
    for _ in range(2):  # a second call does not take it for checked
        with pytest.raises(DataError, match="own is not what its spec says") as error:
            task.setup()
        assert f"row 2 of test has {why}" in str(error.value)


@pytest.mark.parametrize("changes", RIGHT)
def test_a_row_that_fits_is_taken(changes: dict, tmp_path: Path) -> None:
    task = prepared(tmp_path, changes)
    task.setup()
    assert len(task.test) == 3


def test_a_negative_label_is_never_stored(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"own \(own\): row 2 of test has a label below 0"):
        prepared(tmp_path, {"label": -1})
