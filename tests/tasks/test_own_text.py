"""A text of one's own: split as it says, and plain errors otherwise."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from tasks.errors import DataError
from tasks.language.own import Bytes
from tests.tasks.corpora import prepared, text_of


def own_folder(folder: Path, files: int) -> Path:
    for number in range(files):
        (folder / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        (folder / f"{number % 3}" / f"{number}.txt").write_text(f"{number} " * 30)
    (folder / ".hidden").write_text("x")
    (folder / "empty").write_bytes(b"")
    return folder


def test_a_folder_is_split_by_document_in_an_order_of_the_seed(tmp_path: Path) -> None:
    path = own_folder(tmp_path / "texts", 60)
    task = prepared(Bytes, tmp_path / "a", path=str(path), length=8)
    texts = {split: text_of(task, split).split("\0") for split in ("train", "val", "test")}
    assert all(parts.pop() == "" for parts in texts.values())  # each ends with the end symbol
    whole = [each for parts in texts.values() for each in parts]
    assert sorted(whole) == sorted(f"{number} " * 30 for number in range(60))
    assert {split: len(parts) for split, parts in texts.items()} in (
        {"train": 54, "val": 3, "test": 3},
        {"train": 52, "val": 4, "test": 4},
        {"train": 53, "val": 4, "test": 3},
        {"train": 53, "val": 3, "test": 4},
    )
    assert task.meta.parameters["split"] == "document"
    again = prepared(Bytes, tmp_path / "b", path=str(path), length=8)
    other = prepared(Bytes, tmp_path / "c", path=str(path), length=8, data_seed=1)
    assert task.meta.fingerprint == again.meta.fingerprint != other.meta.fingerprint


def test_a_file_is_split_by_share_and_another_text_is_prepared_anew(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("0123456789" * 20)
    task = prepared(Bytes, tmp_path, path=str(file), length=4)
    assert task.meta.parameters["split"] == "share"
    assert [len(task.split(each)[0]["values"]) for each in ("train", "val", "test")] == [
        180,
        10,
        10,
    ]
    assert text_of(task, "test") == "0123456789"
    file.write_text("9876543210" * 20)
    assert prepared(Bytes, tmp_path, path=str(file), length=4).folder != task.folder


def test_a_text_that_changes_while_it_is_read_is_not_prepared(tmp_path: Path) -> None:
    """It would lie under the checksum of what it was: a file that another program writes."""
    file = tmp_path / "a.txt"
    file.write_text("0123456789" * 20)
    task = Bytes(Bytes.Config(path=str(file), length=4), tmp_path)
    known = task.folder
    file.write_text("0123456789" * 21)
    with pytest.raises(DataError, match=r"has changed while it was read(.|\n)*try: "):
        task.prepare_data(show=False)
    assert not known.exists()


def test_a_document_that_is_there_again_is_taken_once(tmp_path: Path) -> None:
    """A copy or a link in the test would be a text that was trained on."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in "abcd":
        (folder / name).write_bytes(name.encode() * 30)
    (folder / "e").symlink_to(folder / "a")
    shutil.copy(folder / "b", folder / "f")
    task = prepared(Bytes, tmp_path / "data", path=str(folder), length=8)
    texts = [text_of(task, split) for split in ("train", "val", "test")]
    assert Counter("".join(texts).replace("\0", "")) == Counter("abcd" * 30)


def test_a_pattern_chooses_among_the_files_of_a_folder(tmp_path: Path) -> None:
    path = own_folder(tmp_path / "texts", 12)
    (path / "picture.png").write_bytes(b"\x89PNG")
    task = prepared(Bytes, tmp_path, path=str(path), pattern="1*.txt", length=8)
    found = sorted(text_of(task, split) for split in ("train", "val", "test"))
    assert found == sorted(f"{number} " * 30 + "\0" for number in (1, 10, 11))


@pytest.mark.parametrize("ending", ["zip", "tar", "gztar", "xztar"])
def test_an_archive_is_the_files_that_are_in_it(tmp_path: Path, ending: str) -> None:
    """Not its own bytes, of which nothing can be learnt."""
    own_folder(tmp_path / "texts", 9)
    file = shutil.make_archive(str(tmp_path / "packed"), ending, tmp_path / "texts")
    task = prepared(Bytes, tmp_path / "data", path=file, pattern="[0-5].txt", length=8)
    texts = [text_of(task, split).split("\0")[:-1] for split in ("train", "val", "test")]
    assert sorted(chain.from_iterable(texts)) == sorted(f"{number} " * 30 for number in range(6))
    with pytest.raises(DataError, match=r"no file z with anything in it(.|\n)*pattern='\*'"):
        prepared(Bytes, tmp_path / "data", path=file, pattern="z")


@pytest.mark.parametrize("files", [3, 4])
def test_few_documents_leave_none_without_a_part(tmp_path: Path, files: int) -> None:
    path = own_folder(tmp_path / "texts", files)
    task = prepared(Bytes, tmp_path, path=str(path), length=8)
    assert [len(task.split(each)) for each in ("val", "test")] == [1, 1]


@pytest.mark.parametrize("seed", range(6))
def test_most_of_a_text_is_not_held_out(tmp_path: Path, seed: int) -> None:
    """A book beside two notes is what is trained on, whatever the order."""
    for name, length in (("book", 900), ("note", 90), ("other", 80)):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / name).write_text("a" * length)
    task = prepared(Bytes, tmp_path, path=str(tmp_path / "texts"), length=8, data_seed=seed)
    assert len(text_of(task, "train")) == 901


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (None, r"task=bytes has no text(.|\n)*task.path=<a file or a folder>"),
        ("nowhere", "there is no such file or folder"),
        ("empty.txt", "is empty"),
        ("none", r"has no file \* with anything in it"),
    ],
)
def test_a_text_that_is_none_is_said(tmp_path: Path, path: str | None, said: str) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=said):
        prepared(Bytes, tmp_path, path=path and str(tmp_path / path))


def test_a_text_shorter_than_a_window_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0123456789" * 20)
    task = prepared(Bytes, tmp_path, path=str(tmp_path / "a.txt"), length=64)
    assert len(task.samples("train")) == 2
    with pytest.raises(DataError, match=r"10 tokens in val(.|\n)*task.length=8"):
        task.samples("val")
