"""The official pairs: read as they lie, in little memory; what is malformed is named."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import DataError
from tasks.retrieval.aan import FILES, PLACES, ROWS, WHAT, read_lines, read_pairs
from tasks.retrieval.pairs import Pair
from tasks.sources.archives import Source, find_or_say

GOOD = b"1.0\tW01\tP02\tA text.\tAnother one."
SPLITS = {
    "train": [("first", "second", 1), ('a "quoted', 'text" of', 0), ("' one", '"', 1)],
    "val": [("third", "fourth", 0)],
    "test": [("Ünïcode ♚", "fifth", 1), ("  blanks ", "and\r more", 0)],
}


def line(first: str, second: str, label: int) -> bytes:
    return f"{float(label)}\tW1\tP2\t{first}\t{second}\n".encode()


def write(folder: Path, splits=SPLITS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, pairs in splits.items():
        (folder / FILES[split]).write_bytes(b"".join(line(*pair) for pair in pairs))
    return folder


def packed(folder: Path, target: Path, order: list[str], mode: str = "w:gz") -> Path:
    """An archive like the official one: the files deep inside, other tasks beside them."""
    with tarfile.open(target, mode) as archive:
        for split in order:
            name = f"lra_release/lra_release/tsv_data/{FILES[split]}"
            archive.add(folder / FILES[split], arcname=name)
            junk = tarfile.TarInfo(f"lra_release/lra_release/tsv_data/._{FILES[split]}")
            junk.size = 4
            archive.addfile(junk, io.BytesIO(b"\x00\x05\x16\x07"))
    return target


def read(source: Path) -> list[tuple[str, Pair]]:
    return list(read_pairs(Source(source), 100, is_official=False))


def lines(content: bytes, max_length: int = 100) -> list[Pair]:
    return list(read_lines(io.BytesIO(content), "pairs.tsv", max_length))


def test_a_folder_is_read_train_first(tmp_path: Path) -> None:
    found = read(write(tmp_path / "aan"))
    expected = {split: [Pair(*pair) for pair in pairs] for split, pairs in SPLITS.items()}
    assert [split for split, _ in found] == ["train"] * 3 + ["val"] + ["test"] * 2
    assert {s: [p for each, p in found if each == s] for s in SPLITS} == expected


@pytest.mark.parametrize("order", [["train", "val", "test"], ["test", "val", "train"]])
@pytest.mark.parametrize("name, mode", [("lra_release.gz", "w:gz"), ("lra_release.tar", "w")])
def test_an_archive_reads_like_the_folder(tmp_path: Path, name, mode, order) -> None:
    folder = write(tmp_path / "plain")
    archive = packed(folder, tmp_path / name, order, mode)
    found, expected = read(archive), read(folder)
    assert found[:3] == expected[:3]
    assert sorted(found) == sorted(expected)


@settings(max_examples=100)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(1, 30))
def test_only_the_beginning_is_decoded_and_whole_characters_are_kept(text: str, kept: int) -> None:
    text = text.translate({ord(c): "_" for c in "\t\n\r"})
    pair = lines(line(text * 9, text, 1), kept)[0]
    assert pair.first[:kept] == (text * 9)[:kept]
    assert len(pair.first.encode()) <= 4 * kept
    assert pair.second[:kept] == text[:kept]


@pytest.mark.parametrize("label, value", [("0", 0), ("1", 1), ("0.0", 0), ("1.0", 1)])
def test_labels_are_written_as_floats(label: str, value: int) -> None:
    assert lines(f"{label}\ta\tb\tc\td\n".encode())[0].label == value


def test_windows_line_ends_and_a_missing_last_one_are_read() -> None:
    assert lines(GOOD + b"\r\n" + GOOD) == [Pair("A text.", "Another one.", 1)] * 2


def test_harmless_oddities_are_read() -> None:
    """A byte-order mark, a blank behind a label, blank lines at the end."""
    text = b"\xef\xbb\xbf" + GOOD.replace(b"\t", b" \t", 1) + b"\n\r\n  \n"
    assert lines(text) == [Pair("A text.", "Another one.", 1)]
    with pytest.raises(DataError, match=r"is in UTF-16(.|\n)*save it as UTF-8"):
        lines(GOOD.decode().encode("utf-16"))


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (b"1.0\tW01\tP02\tA text.", "4 columns instead of 5"),
        (GOOD + b"\tmore", "6 columns instead of 5"),
        (b"1.0\tW01\tP02\tA\ttab\tB", "6 columns"),
        (b"", "1 columns"),
        (b"2.0" + GOOD[3:], "label b'2.0' is not"),
        (b"label" + GOOD[3:], "label b'label' is not"),
        (b"nan" + GOOD[3:], "label b'nan' is not"),
        (b"1.0\ta\tb\t\td", "text 1 is empty"),
        (b"1.0\ta\tb\tc\t", "text 2 is empty"),
        (b"1.0\ta\tb\tc\xffd\te", "text 1: byte 0xff at 1 is not UTF-8"),
        (b"1.0\ta\tb\tc\td\xe2\x99", "text 2: byte 0xe2 at 1 is not UTF-8"),
    ],
)
def test_a_malformed_line_is_named(bad: bytes, what: str) -> None:
    with pytest.raises(DataError, match=f"pairs.tsv, line 2: .*{what}") as caught:
        lines(GOOD + b"\n" + bad + b"\n" + GOOD + b"\n")
    assert "try:" in str(caught.value)
    assert "truncated" not in str(caught.value)


@pytest.mark.parametrize("kept", range(1, 20))
def test_a_line_that_was_cut_off_is_named(kept: int) -> None:
    with pytest.raises(DataError, match=r"line 2: .*truncated"):
        lines(GOOD + b"\n" + GOOD[:kept])


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "aan", {**SPLITS, "val": []})
    with pytest.raises(DataError, match=r"new_aan_pairs\.eval\.tsv is empty"):
        read(folder)


@pytest.mark.parametrize("absent", ["train", "val", "test"])
def test_a_missing_file_is_named(tmp_path: Path, absent: str) -> None:
    folder = write(tmp_path / "aan", {s: p for s, p in SPLITS.items() if s != absent})
    with pytest.raises(DataError, match=rf"has no {FILES[absent]}"):
        read(folder)


def test_the_places_are_searched_in_their_order(tmp_path: Path) -> None:
    for place in reversed(PLACES):
        if place.startswith("lra_release."):
            (tmp_path / place).touch()
        else:
            (tmp_path / place).mkdir(parents=True)
        assert find_or_say("retrieval", tmp_path, PLACES, WHAT, "").path == tmp_path / place


def test_without_files_the_error_says_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_or_say("retrieval", tmp_path, PLACES, WHAT, "task.data=rfc")
    for part in (*PLACES, "7.7 GB", "new_aan_pairs", "prepare task=retrieval", "task.data=rfc"):
        assert part in str(caught.value)


def test_other_numbers_of_pairs_are_not_official(tmp_path: Path, monkeypatch) -> None:
    assert ROWS == {"train": 147_086, "val": 18_090, "test": 17_437}
    source = Source(write(tmp_path / "aan"))
    for split, pairs in SPLITS.items():
        monkeypatch.setitem(ROWS, split, len(pairs))
    assert len(list(read_pairs(source, 100, is_official=True))) == 6
    monkeypatch.setitem(ROWS, "val", 2)
    with pytest.raises(DataError, match=r"eval.tsv has 1 pairs, not .* 2\.(.|\n)*stand_in="):
        list(read_pairs(source, 100, is_official=True))


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, form: str) -> None:
    """40 MB of lines as long as the official ones pass through a few of them."""
    long = ("word " * 5000, "other " * 4000, 1)
    folder = write(tmp_path / "aan", {"train": [long] * 820, "val": [long], "test": [long]})
    assert (folder / FILES["train"]).stat().st_size > 40e6
    source = Source(folder)
    if form == "archive":
        source = Source(packed(folder, tmp_path / "lra_release.tar", list(SPLITS), "w"))
    tracemalloc.start()
    assert sum(1 for _ in read_pairs(source, 4000, is_official=False)) == 822
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6
