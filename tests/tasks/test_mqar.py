"""MQAR: what is asked stands before, once, and the same seed gives the same data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tasks.recall.mqar import BLANK, Mqar, MqarConfig, draw
from tasks.storage.rows import NOTHING
from tests.tasks.samples import ready

SMALL = MqarConfig(
    length=32, pairs=3, vocabulary=20, num_train=1_500, num_val=40, num_test=60, data_seed=5
)


def prepared(folder: Path, config: MqarConfig = SMALL) -> Mqar:
    return ready(Mqar(config, folder))


def test_every_key_is_asked_once_and_its_value_stood_behind_it(tmp_path: Path) -> None:
    task = prepared(tmp_path)
    assert {name: len(task.split(name)) for name in SMALL.sizes} == SMALL.sizes
    assert not task.is_padded
    for row in task.train.select(range(200)):
        values, targets = np.array(row["values"]), np.array(row["targets"])
        front = 2 * SMALL.pairs
        pairs = dict(zip(values[0:front:2].tolist(), values[1:front:2].tolist(), strict=True))
        assert len(pairs) == len(set(pairs.values())) == SMALL.pairs
        assert all(1 <= key < 10 <= value < 20 for key, value in pairs.items())
        asked = np.flatnonzero(targets != NOTHING)
        assert (asked >= front).all()
        assert sorted(values[asked]) == sorted(pairs)
        assert [pairs[key] for key in values[asked].tolist()] == targets[asked].tolist()
        assert (np.delete(values, [*range(front), *asked]) == BLANK).all()


def test_keys_values_and_places_follow_their_laws() -> None:
    config = dataclasses.replace(SMALL, pairs=1, power=0.5)
    rows = draw(20_000, config, 0)
    values = rows.values.reshape(-1, config.length)
    assert rows.targets is not None
    for symbols in (np.bincount(values[:, 0])[1:], np.bincount(values[:, 1])[10:]):
        assert abs(symbols / 20_000 - 1 / len(symbols)).max() < 0.01
    places = np.flatnonzero(rows.targets != NOTHING) % config.length
    shares = np.bincount(places // 2 - 1, minlength=15) / 20_000
    law = np.arange(1, 16) ** -0.5
    assert abs(shares - law / law.sum()).max() < 0.01


def test_the_same_seed_gives_the_same_data_and_another_others(tmp_path: Path) -> None:
    one, again = prepared(tmp_path / "one"), prepared(tmp_path / "again")
    other = prepared(tmp_path / "other", dataclasses.replace(SMALL, data_seed=6))
    assert one.meta.fingerprint == again.meta.fingerprint != other.meta.fingerprint
    (key, value), asked = one.sample("val", 0).split()[:2], one.sample("val", 0)
    assert f" {key}→{value}" in asked


@pytest.mark.parametrize(
    ("change", "said"),
    [({"pairs": 9}, "length=32 has no room for pairs=9; try 36"), ({"vocabulary": 6}, "try 8")],
)
def test_sizes_that_do_not_fit_are_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(SMALL, **change)
