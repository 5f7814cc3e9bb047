"""The ListOps task from its source to its batches, and the same through Lightning."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.base import Batch, TaskSpec
from tasks.errors import DataError
from tasks.listops import official
from tasks.listops.generator import ListOpsLaw
from tasks.listops.official import PLACES
from tasks.listops.task import ListOps, ListOpsConfig, with_end, without_end
from tasks.listops.tsv import source_text
from tasks.listops.vocabulary import EOS, PAD, SYMBOLS, VOCABULARY_SIZE
from tasks.storage.rows import Rows, offsets_of
from tests.tasks.samples import fingerprint_of, ready
from tests.tasks.trees import read_tree

Make = Callable[..., ListOps]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tiny set have the official size, and trees as short as they come."""
    monkeypatch.setattr(official, "ROWS", {"train": 70, "val": 11, "test": 13})
    monkeypatch.setattr(official, "MEAN_LENGTH", range(41))


def sequences(task: ListOps, split: str) -> list[tuple[int, ...]]:
    return [tuple(values) for values in getattr(task, split)["values"]]


def exported(task: ListOps) -> Path:
    return task.folder.with_name(f"{task.folder.name}-tsv")


def test_the_vocabulary_is_the_published_one() -> None:
    assert VOCABULARY_SIZE == 18
    assert (
        *("<pad>", "<unk>", "<eos>", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
        *("[MIN", "[MAX", "[MED", "[SM", "]"),
    ) == SYMBOLS
    assert (PAD, EOS) == (0, 2)


def test_the_defaults_are_the_published_task() -> None:
    config = ListOpsConfig()
    assert config.sizes == {"train": 96_000, "val": 2_000, "test": 2_000}
    assert config.law == ListOpsLaw(500, 2000, 10, 10, 0.75)
    assert config.max_tokens == 2048


def test_from_source_to_batches(listops: Make) -> None:
    task = ready(listops())
    assert [len(split) for split in (task.train, task.val, task.test)] == [70, 11, 13]
    assert replace(task.spec, augment=None) == TaskSpec("listops", 10, 2048, 18, input_dim=1)
    assert task.meta.source == "generated"
    assert fingerprint_of(task.folder) == task.meta.fingerprint
    for batch in list(task.batches("train", 8))[:-1]:
        assert batch.values.shape == (8, int(batch.lengths.max()))
        _holds_true_trees(batch)
    seen = [batch.index.tolist() for batch in task.batches("test", 4)]
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12]]
    assert sum(len(batch.targets) for batch in task.batches("val", 4)) == 11


def _holds_true_trees(batch: Batch) -> None:
    """Each row: a tree whose value is the label, the end symbol, padding; lengths count both."""
    for values, length, label in zip(
        batch.values.tolist(), batch.lengths.tolist(), batch.targets.tolist(), strict=True
    ):
        assert values[length - 1] == EOS
        assert set(values[length:]) <= {PAD}
        tree = read_tree(source_text(bytes(values[: length - 1])).decode())
        assert tree.value == label
        assert tree.length == length - 1
        assert 5 < tree.length < 40


def test_no_tree_is_in_two_splits(listops: Make) -> None:
    """On a law with so few trees that most draws are repeats."""
    task = ready(listops(min_length=4, max_length=8, max_depth=2, max_args=4, num_train=900))
    splits = {split: sequences(task, split) for split in ("train", "val", "test")}
    everything = [tree for trees in splits.values() for tree in trees]
    assert len(everything) == len(set(everything)) == 924


@pytest.mark.usefixtures("small")
def test_official_files_give_the_same_data_as_generating_them(listops: Make) -> None:
    made = ready(listops(export_tsv=True))
    for place in PLACES:
        target = made.data_dir / place
        target.mkdir(parents=True, exist_ok=True)
        for file in exported(made).iterdir():
            shutil.copy(file, target)
        for source in ("official", "auto"):
            found = ready(listops(source=source))
            assert found.meta.source == "official"
            assert found.meta.fingerprint == made.meta.fingerprint
            assert found.folder != made.folder
            assert sequences(found, "test") == sequences(made, "test")
        shutil.rmtree(found.folder)
        for file in target.glob("basic_*.tsv"):
            file.unlink()
    assert ready(listops(source="auto")).meta.source == "generated"


def pack(made: ListOps, kept: float = 1.0) -> Path:
    """The archive of the Long Range Arena, as far as ListOps needs it, perhaps cut off."""
    path = made.data_dir / "lra_release.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(__file__, "lra_release/lra_release/README")
        archive.add(exported(made), "lra_release/lra_release/listops-1000")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    return path


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("source", ["auto", "official"])
def test_the_archive_serves_unopened(listops: Make, source: str) -> None:
    made = ready(listops(export_tsv=True))
    pack(made)
    found = ready(listops(source=source))
    assert found.meta.source == "official"
    assert found.meta.fingerprint == made.meta.fingerprint
    assert list(found.meta.splits) == ["train", "val", "test"]


def test_a_truncated_archive_leaves_no_prepared_data(listops: Make) -> None:
    path = pack(ready(listops(export_tsv=True)), kept=0.7)
    task = listops(source="official")
    with pytest.raises(DataError, match=f"{path.name} is truncated"):
        task.prepare_data()
    assert not task.folder.exists()


def test_an_archive_of_something_else_is_named(listops: Make) -> None:
    made = listops()
    made.data_dir.mkdir()
    with tarfile.open(made.data_dir / "lra_release.tar", "w") as archive:
        archive.add(__file__, "lra_release/README")
    with pytest.raises(DataError, match=r"lra_release\.tar has no listops-1000/basic_"):
        listops(source="official").prepare_data()


def test_other_trees_have_a_name_of_their_own(listops: Make) -> None:
    made = ready(listops(export_tsv=True))
    shutil.copytree(exported(made), made.data_dir / PLACES[1])
    for source in ("auto", "official"):
        with pytest.raises(DataError, match=r"basic_train.tsv is not the official file: it has 70"):
            listops(source=source).prepare_data()
    found = ready(listops(source="auto", stand_in="mine"))
    assert (found.meta.source, found.meta.stand_in) == ("mine", True)
    assert found.folder.name.startswith("mine-")
    assert found.meta.fingerprint == made.meta.fingerprint


def test_short_trees_are_not_the_official_ones_even_if_they_are_as_many(
    listops: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(official, "ROWS", {"train": 70, "val": 11, "test": 13})
    made = ready(listops(export_tsv=True))
    shutil.copytree(exported(made), made.data_dir / PLACES[1])
    with pytest.raises(DataError, match=r"70 trees of \d+ symbols on average, not 70 of 1,035"):
        listops(source="official").prepare_data()


def test_an_archive_with_two_sets_is_refused(listops: Make) -> None:
    made = ready(listops(export_tsv=True))
    with tarfile.open(made.data_dir / "lra_release.tar", "w") as archive:
        for folder in ("lra_release", "lra_release/lra_release"):
            archive.add(exported(made), f"{folder}/listops-1000")
    with pytest.raises(DataError, match=r"basic_\w+\.tsv twice, in two folders"):
        listops(source="auto", stand_in="mine").prepare_data()


def test_a_stand_in_is_not_generated(listops: Make) -> None:
    with pytest.raises(
        DataError, match=r"no data for listops(.|\n)*lra_release.gz(.|\n)*task.source=generated"
    ):
        listops(source="auto", stand_in="mine").prepare_data()
    with pytest.raises(ValueError, match="leave out source=generated"):
        listops(source="generated", stand_in="mine")


def test_the_places_are_searched_in_their_order(listops: Make) -> None:
    made = ready(listops(export_tsv=True))
    small = ready(listops(export_tsv=True, num_train=5))
    for place, task in zip(PLACES[1:], [small, made], strict=True):
        shutil.copytree(exported(task), made.data_dir / place)
    assert len(ready(listops(source="official", stand_in="mine")).train) == 5


@pytest.mark.usefixtures("small")
def test_a_folder_may_be_named(listops: Make, tmp_path: Path) -> None:
    made = ready(listops(export_tsv=True))
    shutil.copytree(exported(made), tmp_path / "mine")
    assert ready(listops(source="auto", tsv_dir=str(tmp_path / "mine"))).meta.source == "official"
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'none'}/basic_")):
        listops(source="auto", tsv_dir=str(tmp_path / "none")).prepare_data()


def test_missing_official_files_are_named_with_their_places(listops: Make) -> None:
    task = listops(source="official")
    with pytest.raises(DataError) as caught:
        task.prepare_data()
    for place in PLACES:
        assert f"{task.data_dir / place}/basic_{{train,val,test}}.tsv" in str(caught.value)
    assert "task.source=generated" in str(caught.value)


def test_a_half_copied_release_is_not_taken_for_none(listops: Make) -> None:
    made = ready(listops(export_tsv=True))
    target = made.data_dir / PLACES[0]
    shutil.copy(exported(made) / "basic_val.tsv", target)
    with pytest.raises(DataError, match=r"has basic_val.tsv, but not basic_train.tsv"):
        listops(source="auto").prepare_data()


@pytest.mark.usefixtures("small")
def test_other_official_files_are_another_dataset(listops: Make) -> None:
    made = ready(listops(export_tsv=True))
    target = made.data_dir / PLACES[1]
    shutil.copytree(exported(made), target)
    before = ready(listops(source="official"))
    file = target / "basic_train.tsv"
    stamp = file.stat()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], lines[2], lines[1], *lines[3:]]))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size, same time
    after = ready(listops(source="official"))
    assert after.folder != before.folder
    assert after.meta.fingerprint != before.meta.fingerprint


@pytest.mark.usefixtures("small")
def test_a_malformed_official_file_leaves_no_prepared_data(listops: Make) -> None:
    made = ready(listops(export_tsv=True))
    target = made.data_dir / PLACES[1]
    shutil.copytree(exported(made), target)
    with (target / "basic_test.tsv").open("ab") as file:
        file.write(b"( ( [MIN 3")
    task = listops(source="official")
    with pytest.raises(DataError, match=r"basic_test.tsv, line 15, column 11: .*truncated"):
        task.prepare_data()
    assert not task.folder.exists()


def test_long_trees_are_cut_and_end_all_the_same(listops: Make) -> None:
    whole, cut = ready(listops()), ready(listops(max_tokens=12))
    assert cut.spec.max_length == 12
    assert cut.folder != whole.folder
    before, after = sequences(whole, "train"), sequences(cut, "train")
    assert max(map(len, before)) > 12
    for long, short in zip(before, after, strict=True):
        assert short == (*long[:-1][:11], EOS)
    lengths = [length for batch in cut.batches("val", 4) for length in batch.lengths.tolist()]
    assert lengths == [len(tree) for tree in sequences(cut, "val")]


@pytest.mark.parametrize("lengths", [[0], [0, 0], [3, 0, 5], [1, 2, 9, 0], []])
def test_the_end_symbol_is_put_on_and_taken_off(lengths: list[int]) -> None:
    values = np.arange(3, 3 + sum(lengths), dtype=np.uint8)
    rows = Rows(values, offsets_of(np.array(lengths, dtype=np.int64)), np.zeros(len(lengths)))
    ended = with_end(rows, max_tokens=100)
    assert ended.lengths.tolist() == [length + 1 for length in lengths]
    assert all(ended.values[stop - 1] == EOS for stop in ended.offsets[1:])
    assert [a.tolist() for a in without_end(ended)[:3]] == [a.tolist() for a in rows[:3]]


def test_what_determines_the_data_names_the_folder(listops: Make) -> None:
    folder = listops().folder
    for same in ({"workers": 2}, {"export_tsv": True}, {"source": "auto"}):
        assert listops(**same).folder == folder, same
    for other in (
        {"data_seed": 1},
        {"num_train": 71},
        {"num_val": 12},
        {"num_test": 14},
        {"min_length": 6},
        {"max_length": 41},
        {"max_depth": 5},
        {"max_args": 9},
        {"p_digit": 0.7},
        {"max_tokens": 99},
    ):
        assert listops(**other).folder != folder, other


def test_the_order_of_use_is_told(listops: Make) -> None:
    with pytest.raises(RuntimeError, match=r"prepare_data\(\) and setup\(\)"):
        _ = listops().train


def test_what_is_not_prepared_is_not_called_damaged(
    listops: Make, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"listops is not prepared here: there is no data/") as told:
        listops(data_dir=Path("data")).setup()
    assert f"set data_dir (it is relative to {tmp_path})" in str(told.value)
    with pytest.raises(DataError, match=r"chela prepare task=(.|\n)*or set data_dir$"):
        listops().setup()


def test_an_export_is_whole_or_absent(listops: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(listops())  # exporting later does not need to prepare again
    task = listops(export_tsv=True)
    with monkeypatch.context() as patch:

        def full(path: Path, blocks: object) -> None:
            path.touch()
            raise OSError(28, "No space left on device")

        patch.setattr("tasks.listops.task.write_tsv", full)
        with pytest.raises(DataError, match=r"No space left(.|\n)*free some space"):
            task.prepare_data()
    assert not list(task.folder.parent.glob("*-tsv*"))
    killed = exported(task).with_name(f"{exported(task).name}.partial")
    killed.mkdir()
    task.prepare_data()
    assert not killed.exists()
    assert sorted(file.name for file in exported(task).iterdir()) == [
        *("basic_test.tsv", "basic_train.tsv", "basic_val.tsv")
    ]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"min_length": 39}, "at least min_length"),
        ({"export_tsv": True, "max_tokens": 39}, "max_tokens >= max_length"),
    ],
)
def test_what_cannot_be_is_refused(listops: Make, changes: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        listops(**changes)
