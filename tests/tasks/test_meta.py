"""What a prepared dataset says of itself: read back, fingerprinted, checked when opened."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import DataError
from tasks.storage.columns import stored_rows
from tasks.storage.meta import Origin, SplitCounts, fingerprint
from tasks.storage.rows import Rows
from tasks.storage.store import load, prepare
from tests.tasks.samples import SAMPLES, block, fingerprint_of, recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "toy" / "made-1"


def test_what_is_prepared_is_loaded(folder: Path) -> None:
    prepare(folder, recipe())
    prepared = load(folder)
    assert sorted(file.name for file in folder.iterdir()) == [
        "meta.json",
        "test.arrow",
        "train.arrow",
        "val.arrow",
    ]
    for split, samples in SAMPLES.items():
        found = prepared.splits[split]
        assert list(zip(found["values"], found["label"], strict=True)) == samples
        assert str(found.features["values"].feature.dtype) == "uint8"
        assert str(found.features["label"].dtype) == "int64"
        file = folder / f"{split}.arrow"
        assert prepared.meta.splits[split].bytes == file.stat().st_size
    meta = prepared.meta
    assert (meta.task, meta.version, meta.source) == ("toy", 1, "made")
    assert meta.parameters == {"size": 9}
    train = meta.splits["train"]
    assert (train.rows, train.class_counts) == (4, [1, 1, 2])
    assert (train.min_length, train.mean_length, train.max_length) == (0, 1.5, 3)
    assert set(meta.libraries) == {"numpy", "pyarrow", "datasets"}
    assert meta.majority_accuracy("train") == 2 / 4
    assert meta.majority_accuracy("test") == 0  # the class most frequent in train is not in test
    assert "4 train / 1 val / 4 test" in meta.describe()
    assert meta.summary()["fingerprint"] == meta.fingerprint == fingerprint_of(folder)


def test_what_was_found_on_the_way_is_kept(folder: Path) -> None:
    found: dict[str, str] = {}

    def rows() -> Iterator[tuple[str, Rows]]:
        yield "train", block(([1], 0))
        found["alphabet"] = "aé"  # only now known

    prepare(folder, dataclasses.replace(recipe(rows), facts=lambda: found))
    assert load(folder).meta.facts == {"alphabet": "aé"}
    other = folder.with_name("made-2")
    prepare(other, recipe())
    assert load(other).meta.facts == {}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_values_keep_their_type(folder: Path, dtype: str) -> None:
    prepare(folder, recipe(lambda: iter([("train", block(([1, 2], 0), dtype=dtype))]), dtype))
    rows = next(stored_rows(load(folder).splits["train"]))
    assert rows.values.dtype == dtype
    assert rows.values.tolist() == [1, 2]


def test_rows_of_another_type_are_refused(folder: Path) -> None:
    with pytest.raises(TypeError, match="uint16"):
        prepare(folder, recipe(lambda: iter([("train", block(([300], 0), dtype="uint16"))])))
    assert not folder.exists()


samples_of_a_split = st.lists(
    st.tuples(st.lists(st.integers(0, 255), max_size=6), st.integers(0, 3)), min_size=1, max_size=12
)


def named(samples: list[tuple[list[int], int]], cuts: list[int]) -> str:
    counts = SplitCounts()
    bounds = [0, *sorted(cut % (len(samples) + 1) for cut in cuts), len(samples)]
    for start, stop in itertools.pairwise(bounds):
        counts.add(block(*samples[start:stop]))
    return fingerprint(1, {"train": counts})


@given(samples_of_a_split, st.lists(st.integers(0, 12), max_size=4))
def test_the_fingerprint_is_of_the_content_not_of_its_blocks(samples, cuts) -> None:
    assert named(samples, cuts) == named(samples, [])


@given(samples_of_a_split, st.data())
def test_any_change_of_the_content_changes_the_fingerprint(samples, data) -> None:
    before = named(samples, [])
    row = data.draw(st.integers(0, len(samples) - 1))
    values, label = samples[row]
    others = [(values, label + 1), ([*values, 0], label)]
    if values:
        others.append(([*values[:-1], values[-1] ^ 1], label))
    for other in others:
        assert named([*samples[:row], other, *samples[row + 1 :]], []) != before


def test_the_fingerprint_knows_boundaries_splits_and_version() -> None:
    def counted(*samples: tuple[list[int], int]) -> SplitCounts:
        counts = SplitCounts()
        counts.add(block(*samples))
        return counts

    one, other = counted(([1, 2], 0), ([3], 0)), counted(([1], 0), ([2, 3], 0))
    names = {
        fingerprint(1, {"train": one, "test": other}),
        fingerprint(1, {"train": other, "test": one}),
        fingerprint(1, {"train": one, "val": other}),
        fingerprint(2, {"train": one, "test": other}),
    }
    assert len(names) == 4


def test_a_truncated_file_is_named(folder: Path) -> None:
    prepare(folder, recipe())
    file = folder / "val.arrow"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"val.arrow has .* instead of(.|\n)*delete {folder}"):
        load(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    prepare(folder, recipe())
    (folder / "test.arrow").unlink()
    with pytest.raises(DataError, match=rf"test.arrow is missing(.|\n)*delete {folder}"):
        load(folder)


@pytest.mark.parametrize("text", [None, "", "{", "{}", '{"splits": {}}', '{"splits": {"a": {}}}'])
def test_a_broken_meta_is_named(folder: Path, text: str | None) -> None:
    prepare(folder, recipe())
    (folder / "meta.json").unlink()
    if text is not None:
        (folder / "meta.json").write_text(text)
    with pytest.raises(DataError, match=rf"meta.json cannot be read(.|\n)*delete {folder}"):
        load(folder)


def flipped(file: Path, place: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << bit
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["train.arrow", "meta.json"])
def test_one_flipped_bit_anywhere_is_seen_before_anything_is_mapped(
    folder: Path, name: str
) -> None:
    """Among the offsets it would end the process, among the labels index outside of a table."""
    prepare(folder, recipe())
    file = folder / name
    for place in range(0, file.stat().st_size, 7):
        flipped(file, place, place % 8)
        with pytest.raises(DataError, match=rf"{name} cannot be read(.|\n)*delete"):
            load(folder)
        flipped(file, place, place % 8)
    assert fingerprint_of(folder) == load(folder).meta.fingerprint


def test_data_of_an_earlier_version_without_a_checksum_are_named(folder: Path) -> None:
    prepare(folder, recipe())
    content = json.loads((folder / "meta.json").read_text())
    del content["checksum"]
    (folder / "meta.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"an earlier version(.|\n)*prepared again"):
        load(folder)


@pytest.mark.parametrize(
    "error",
    [
        OSError(12, "Cannot allocate memory"),
        OSError("Memory mapping file failed: Cannot allocate memory"),  # with `ulimit -v`
        pa.ArrowMemoryError("malloc failed"),
    ],
)
def test_too_little_memory_is_not_called_damage(folder: Path, monkeypatch, error) -> None:
    prepare(folder, recipe())

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("tasks.storage.store.Dataset.from_file", fails)
    with pytest.raises(DataError, match="memory is short") as caught:
        load(folder)
    assert "delete" not in str(caught.value)


def test_the_same_rows_in_other_blocks_are_the_same_dataset(folder: Path) -> None:
    def one_by_one() -> Iterator[tuple[str, Rows]]:
        for split, samples in SAMPLES.items():
            for sample in samples:
                yield split, block(sample)

    prepare(folder, recipe())
    other = folder.with_name("made-2")
    prepare(other, recipe(one_by_one))
    assert fingerprint_of(folder) == fingerprint_of(other)


def test_a_prepared_folder_may_be_moved(folder: Path, tmp_path: Path) -> None:
    prepare(folder, recipe())
    shutil.move(folder, tmp_path / "elsewhere")
    assert load(tmp_path / "elsewhere").splits["train"][3] == {"values": [5, 6], "label": 1}


def test_the_key_names_everything_that_determines_the_content() -> None:
    base = Origin("toy", 1, "made", {"size": 9})
    others = [
        Origin("toy", 2, "made", {"size": 9}),
        Origin("toy", 1, "found", {"size": 9}),
        Origin("toy", 1, "made", {"size": 8}),
    ]
    assert len({origin.key for origin in [base, *others]}) == 4
    assert Origin("toy", 1, "made", {"size": 9}).key == base.key
    assert base.key.startswith("made-")
