"""Induction and selective copying: the answer stands before, and the draws follow their laws."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.recall import induction, selective_copying
from tasks.recall.drawn import BLANK
from tasks.recall.induction import Induction, InductionConfig
from tasks.recall.selective_copying import SelectiveCopying, SelectiveCopyingConfig
from tasks.storage.rows import NOTHING
from tests.tasks.samples import ready

SMALL: dict[str, Any] = {"num_train": 1_500, "num_val": 40, "num_test": 60, "data_seed": 5}
HEAD = InductionConfig(length=12, vocabulary=6, **SMALL)
COPY = SelectiveCopyingConfig(length=20, copied=3, vocabulary=7, **SMALL)


def matrices(task: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    rows = task.draw(count, 0)
    shape = (count, task.config.length)
    return rows.values.reshape(shape), rows.targets.reshape(shape)


def test_what_followed_the_sign_is_asked_at_its_second_place() -> None:
    values, targets = matrices(Induction(HEAD, Path()), 20_000)
    signs = np.argwhere(values == induction.SIGN)
    assert len(signs) == 2 * len(values)
    first, last = signs[::2, 1], signs[1::2, 1]
    assert (last == 11).all() and (targets[:, :-1] == NOTHING).all()
    assert (targets[:, -1] == values[np.arange(len(values)), first + 1]).all()
    assert (targets[:, -1] != induction.SIGN).all()
    assert set(first) == set(range(10))
    assert abs(np.bincount(first) / len(first) - 0.1).max() < 0.01
    assert abs(np.bincount(targets[:, -1])[1:] / len(first) - 1 / 5).max() < 0.015


def test_what_stood_among_blanks_is_asked_in_its_order() -> None:
    values, targets = matrices(SelectiveCopying(COPY, Path()), 20_000)
    front, end = values[:, :17], values[:, 17:]
    assert (end == selective_copying.SIGN).all()
    kept = front != BLANK
    assert (kept.sum(1) == 3).all() and (front[kept] > selective_copying.SIGN).all()
    assert (targets[:, :17] == NOTHING).all()
    assert (targets[:, 17:] == front[kept].reshape(-1, 3)).all()
    assert abs(kept.mean(0) - 3 / 17).max() < 0.015
    assert abs(np.bincount(front[kept], minlength=7)[2:] / kept.sum() - 1 / 5).max() < 0.01


@pytest.mark.parametrize(("kind", "config"), [(Induction, HEAD), (SelectiveCopying, COPY)])
def test_the_same_seed_gives_the_same_data_and_another_others(kind, config, tmp_path: Path) -> None:
    found = []
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        task = ready(kind(dataclasses.replace(config, data_seed=seed), tmp_path / name))
        found.append(task.meta.fingerprint)
        assert len(task.train) == 1_500 and not task.is_padded
        assert task.spec.answers == task.answers
        assert task.tokens_of("3 0 5").tolist() == [3, 0, 5]
    assert found[0] == found[1] != found[2]


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="length=5 has no room for copied=3; try 6"):
        dataclasses.replace(COPY, length=5)
    with pytest.raises(ValueError, match="greater than or equal to 3"):
        dataclasses.replace(HEAD, length=2)
    for config in (HEAD, COPY):  # they are stored in 16 bits, where others would become these
        with pytest.raises(ValueError, match="less than or equal to 65536"):
            dataclasses.replace(config, vocabulary=2**16 + 1)
