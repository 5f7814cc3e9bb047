"""Corpora: split as they say, told from others by their checksum, and plain errors otherwise."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.errors import DataError
from tasks.language.corpus import WindowsConfig
from tasks.language.hutter import Enwik8, Text8
from tasks.language.pieces import WikiText103Pieces
from tasks.language.rfc import RfcBytes
from tasks.language.words import WikiText2, WikiText103
from tests.tasks.corpora import prepared, text_of, zipped
from tests.tasks.rfcs import made, write_packed

BYTES = bytes(range(1, 251)) * 4  # a thousand
LETTERS = b"the quick brown fox jumps over the lazy dog " * 20


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("task", "content"), [(Enwik8, BYTES), (Text8, LETTERS)])
def test_a_corpus_of_bytes_is_split_in_order(
    tmp_path: Path, task: type[Any], content: bytes, packed: bool
) -> None:
    name = task.Config().name
    if packed:
        zipped(tmp_path / f"{name}.zip", {name: content})
    else:
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(content)
    found = prepared(task, tmp_path, length=16, stand_in="other")
    held_out = len(content) // 20
    splits = {split: found.split(split)["values"] for split in ("train", "val", "test")}
    joined = [np.concatenate(rows) for rows in splits.values()]
    assert [len(each) for each in joined] == [len(content) - 2 * held_out, held_out, held_out]
    whole = np.concatenate(joined)
    assert whole.max() < found.spec.vocab_size == found.spec.num_classes
    assert bytes(found.tokens_of(content[:20].decode("latin1")[:9])) == bytes(whole[:9].tolist())
    if task is Text8:
        assert found.text_of(whole) == content.decode()
    assert found.meta.stand_in and found.meta.source == "other"
    assert found.evaluation == {"context": 8, "stride": 8}
    assert not found.is_padded and len(found.samples("train")) == len(joined[0]) // 16


def test_windows_are_no_part_of_the_prepared_data(tmp_path: Path) -> None:
    zipped(tmp_path / "enwik8.zip", {"enwik8": BYTES})
    one = prepared(Enwik8, tmp_path, length=16, stand_in="other")
    other = prepared(Enwik8, tmp_path, length=32, context=7, stand_in="other")
    assert one.folder == other.folder


@pytest.mark.parametrize(
    ("task", "content", "said"),
    [
        (Enwik8, BYTES, r"not the official file: the md5 .*1,000 bytes(.|\n)*task.stand_in"),
        (Text8, LETTERS, r"text8.zip is not the official file"),
        (Enwik8, b"", r"enwik8.zip is empty"),
        (Text8, b"abc Def", r"byte 4 is 0x44, neither a blank nor a small letter"),
    ],
)
def test_bytes_that_are_not_the_official_ones_are_refused(
    tmp_path: Path, task: type[Any], content: bytes, said: str
) -> None:
    name = task.Config().name
    zipped(tmp_path / f"{name}.zip", {name: content})
    keys = {"stand_in": "other"} if said.startswith("byte") else {}
    with pytest.raises(DataError, match=said):
        prepared(task, tmp_path, **keys)


def test_a_zip_is_read_as_far_as_it_is_sound(tmp_path: Path) -> None:
    file = zipped(tmp_path / "enwik8.zip", {"enwik8": BYTES * 50})
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    with pytest.raises(DataError, match="truncated or not what its name says"):
        prepared(Enwik8, tmp_path, stand_in="other")
    file.write_bytes(whole[:90] + bytes([whole[90] ^ 255]) + whole[91:])
    with pytest.raises(DataError, match="truncated or not what its name says"):
        prepared(Enwik8, tmp_path, stand_in="other")
    zipped(file, {"another": BYTES})
    with pytest.raises(DataError, match="has no file enwik8"):
        prepared(Enwik8, tmp_path, stand_in="other")


@pytest.mark.parametrize(
    "task", [Enwik8, Text8, WikiText103, WikiText2, WikiText103Pieces, RfcBytes]
)
def test_what_is_missing_is_said_once_and_whole(tmp_path: Path, task: type[Any]) -> None:
    name = task.Config().name
    with pytest.raises(DataError) as caught:
        prepared(task, tmp_path)
    assert re.search(rf"no data for {name}.*get: .*\n  try: .*task={name}", str(caught.value), re.S)


def test_rfcs_as_bytes_are_split_by_document_without_boilerplate(tmp_path: Path) -> None:
    rows, links = made(60)
    rows[30]["year"] = 1968  # as RFC 31 has it
    write_packed(tmp_path / "rfc", rows, links, compress=True)
    (tmp_path / "rfc" / "citations.tsv.xz").unlink()  # of no use here
    task = prepared(RfcBytes, tmp_path, length=16, max_characters=100)
    found = [text_of(task, split).split("\0")[:-1] for split in ("train", "val", "test")]
    bodies = [str(row["text_masked"]).partition("All of it.\n\n")[2][:100] for row in rows]
    kept = [body for body, row in zip(bodies, rows, strict=True) if not row["listing"]]
    assert sorted(chain.from_iterable(found)) == sorted(kept)
    assert [len(each) for each in found][1:] == [3, 3]
    assert task.meta.facts == {"documents": 57, "newest": 59}
    assert not task.meta.stand_in


@pytest.mark.parametrize("own", [0, 2])
def test_rfcs_that_are_too_few_to_be_split_are_said(tmp_path: Path, own: int) -> None:
    rows, links = made(5)
    for number, row in enumerate(rows):
        row["listing"] = number >= own
    write_packed(tmp_path / "rfc", rows, links)
    with pytest.raises(DataError, match=rf"rfc: {own} RFCs that are no list(.|\n)*get: "):
        prepared(RfcBytes, tmp_path, length=16)


def test_a_context_leaves_something_to_score() -> None:
    with pytest.raises(ValueError, match="try context=4"):
        WindowsConfig(length=8, context=8)
    assert WindowsConfig(length=8).carried == 4
