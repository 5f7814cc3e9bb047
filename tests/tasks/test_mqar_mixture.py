"""MQAR of many sizes: each kind is drawn as MQAR is, and its rows say which it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tasks.recall.mqar_mixture import MqarMixture, MqarMixtureConfig
from tasks.storage.rows import NOTHING
from tests.tasks.samples import ready

SMALL = MqarMixtureConfig(
    train=[(8, 2, 1_300), (16, 3, 30)],
    test=[(8, 2), (16, 4), (8, 1)],
    num_val=10,
    num_test=20,
    vocabulary=20,
    data_seed=5,
)


def prepared(folder: Path, config: MqarMixtureConfig = SMALL) -> MqarMixture:
    return ready(MqarMixture(config, folder))


def test_each_kind_has_its_rows_its_length_and_its_pairs(tmp_path: Path) -> None:
    task = prepared(tmp_path)
    assert (task.spec.max_length, task.spec.answers, task.is_padded) == (16, 4, True)
    assert task.kinds == ["2", "4", "1"]
    for split, kinds in SMALL.drawn.items():
        rows = task.split(split)
        labels = np.array(rows["label"])
        assert np.bincount(labels).tolist() == [samples for _, _, samples in kinds]
        for row in rows:
            length, pairs, _ = kinds[row["label"]]
            targets = np.array(row["targets"])
            assert len(row["values"]) == length
            assert (targets != NOTHING).sum() == pairs
            assert (np.array(row["values"]) != 0).sum() == 3 * pairs


def test_no_two_blocks_are_drawn_alike(tmp_path: Path) -> None:
    """Kinds, splits and blocks have random streams of their own."""
    config = dataclasses.replace(SMALL, train=[(8, 2, 1_001), (8, 2, 3)], vocabulary=2_000)
    task = prepared(tmp_path, config)
    rows = [tuple(row["values"]) for name in ("train", "val") for row in task.split(name)]
    assert len(set(rows)) == len(rows)
    other = prepared(tmp_path, dataclasses.replace(config, data_seed=6))
    assert task.meta.fingerprint != other.meta.fingerprint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": [(8, 3, 5)]}, "length=8 has no room for pairs=3; try 12"),
        ({"test": [(256, 10)]}, "vocabulary=20 has not pairs=10 keys"),
        ({"test": [(8, 2), (16, 2)]}, "two kinds with 2 pairs"),
        ({"train": []}, "at least 1 item"),
        ({"train": [(8, 2)]}, "train.0.2"),
        ({"test": [(8, 0)]}, "greater than 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(SMALL, **change)
