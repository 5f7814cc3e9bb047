"""The official files: what is written is read again, and what is malformed is named."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import DataError
from tasks.listops.tsv import read_tsv, source_text, write_tsv
from tasks.listops.values import values_of
from tasks.listops.vocabulary import SYMBOLS
from tasks.storage.rows import Rows, offsets_of
from tests.tasks.trees import read_tree

digits = st.sampled_from("0123456789").map(lambda digit: [digit])
operators = st.sampled_from(["[MIN", "[MAX", "[MED", "[SM"])
trees = st.recursive(
    digits,
    lambda inner: st.builds(
        lambda name, arguments: [name, *(word for each in arguments for word in each), "]"],
        operators,
        st.lists(inner, min_size=1, max_size=10),
    ),
    max_leaves=40,
)


def numbers(words: list[str]) -> bytes:
    return bytes(SYMBOLS.index(word) for word in words)


def block(sources: list[list[str]], labels: list[int]) -> Rows:
    values = np.frombuffer(b"".join(numbers(words) for words in sources), dtype=np.uint8)
    lengths = np.array([len(words) for words in sources])
    return Rows(values, offsets_of(lengths), np.array(labels))


def read(text: bytes) -> list[Rows]:
    return list(read_tsv(io.BytesIO(text), Path("somewhere/basic_val.tsv")))


def test_the_official_form() -> None:
    assert source_text(numbers(["[MAX", "3", "5", "]"])) == b"( ( ( [MAX 3 ) 5 ) ] )"
    nested = ["[MED", "[SM", "1", "2", "]", "4", "]"]
    assert source_text(numbers(nested)) == b"( ( ( [MED ( ( ( [SM 1 ) 2 ) ] ) ) 4 ) ] )"
    assert source_text(numbers(["7"])) == b"7"


@pytest.mark.long
@settings(max_examples=150)
@given(st.lists(trees, min_size=1, max_size=20), st.integers(0, 20))
def test_what_is_written_is_read_again(sources: list[list[str]], cut: int) -> None:
    labels = [read_tree(source_text(numbers(words)).decode()).value for words in sources]
    blocks = [block(sources[:cut], labels[:cut]), block(sources[cut:], labels[cut:])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trees.tsv"
        write_tsv(path, blocks)
        written = path.read_bytes()
    lines = written.decode().splitlines()[1:]
    found = read(written)
    assert len(found) == 1
    whole = block(sources, labels)
    assert [a.tolist() for a in found[0][:3]] == [a.tolist() for a in whole[:3]]
    assert found[0].values.dtype == np.uint8
    for line, words in zip(lines, sources, strict=True):
        assert read_tree(line.split("\t")[0]).length == len(words)


def test_windows_line_ends_and_a_missing_last_one_are_read() -> None:
    expected = [numbers(["[SM", "1", "2", "]"]) + numbers(["3"])]
    for end, last in ((b"\r\n", b"\r\n"), (b"\n", b"")):
        text = b"Source\tTarget" + end + b"( ( ( [SM 1 ) 2 ) ] )\t3" + end + b"3\t3" + last
        rows = read(text)
        assert [each.values.tobytes() for each in rows] == expected
        assert rows[0].labels.tolist() == [3, 3]


GOOD = b"( ( ( [MAX 3 ) 5 ) ] )\t5"


@pytest.mark.parametrize(
    ("line", "column", "what"),
    [
        (b"( ( ( [MAX 3 ) 5 ) ] ) 5", 25, "no tab"),
        (b"( ( ( [MAX 3 ) 5 ) ] )\t", 24, "label '' is not"),
        (b"( ( ( [MAX 3 ) 5 ) ] )\t10", 24, "label '10' is not"),
        (b"( ( ( [MAX 3 ) 5 ) ] )\tx", 24, "label 'x' is not"),
        (b"( ( ( [MAX 3 ) 5 ) ] )\t5\t5", 24, "is not one of 0 .. 9"),
        (b"\t5", 1, "tree is empty"),
        (b" ( ) \t5", 1, "tree is empty"),
        (b"", 1, "no tab"),
        (b"( ( ( [FOO 3 ) 5 ) ] )\t5", 7, r"unknown symbol '\[FOO'"),
        (b"( ( ( [MAX 3 ) 15 ) ] )\t5", 16, "unknown symbol '15'"),
        ("( ( ( [MAX é ) 5 ) ] )\t5".encode(), 12, "unknown symbol 'é'"),
        ("( ( ( [MAX 3\u00a0) 5 ) ] )\t5".encode(), 12, "unknown symbol"),
        (b"( ( ( [MAX 3 ) \xff ) ] )\t5", 16, "0xff is not UTF-8"),
        ("( ( [MAX é".encode() + b"\xff ) ] )\t5", 11, "0xff is not UTF-8"),
        (b"( ( ( [MAX 3 ) 5 )\t5", 7, r"operator without its '\]'"),
        (b"( [MIN 1 ( [MAX 2\t5", 12, r"operator without its '\]'"),
        (b"( ( [MAX 3 ) ] ) 4\t5", 18, "'4' after the end"),
        (b"( ( [MAX 3 ) ] ) ]\t5", 18, r"'\]' after the end"),
        (b"3 4\t5", 3, "'4' after the end"),
        (b"]\t5", 1, r"'\]' without an operator"),
        (b"( ( ( [MAX 3 ) ( [MIN ] ) ) ] )\t5", 23, "has no argument"),
    ],
)
def test_a_malformed_line_is_named_with_its_place(line: bytes, column: int, what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        read(b"\n".join([b"Source\tTarget", GOOD, line, GOOD]) + b"\n")
    assert f"basic_val.tsv, line 3, column {column}: " in str(caught.value)
    assert "try:" in str(caught.value)
    assert "truncated" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (b"", 1, "file is empty"),
        (b"Source\tTarget\n", 2, "no line after the header"),
        (GOOD + b"\n", 1, "header"),
        (b"Source Target\n" + GOOD, 1, "header"),
        ("Source\tTarget\n".encode("utf-16"), None, "in UTF-16"),
    ],
)
def test_a_malformed_beginning_is_named(text: bytes, line: int | None, what: str) -> None:
    place = "" if line is None else f", line {line}, column 1:"
    with pytest.raises(DataError, match=rf"basic_val.tsv{place} .*{what}"):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfSource\tTarget\n" + GOOD,
        b"Source\tTarget \n" + GOOD,
        b"Source\tTarget\n" + GOOD + b" \n",
        b"Source\tTarget\n" + GOOD + b"\t\r\n",
        b"Source\tTarget\n" + GOOD + b"\n\n",
        b"Source\tTarget\n" + GOOD + b"\r\n \r\n\n",
    ],
)
def test_harmless_oddities_are_read(text: bytes) -> None:
    """A byte-order mark, blanks behind a label, blank lines at the end."""
    assert [rows.labels.tolist() for rows in read(text)] == [[5]]


def test_a_false_label_is_named_with_its_line() -> None:
    false = b"( ( ( [MAX 3 ) 5 ) ] )\t3"
    text = b"\n".join([b"Source\tTarget", *[GOOD] * 1500, false, GOOD])
    with pytest.raises(DataError, match=r"line 1502: the label is 3, but the value .* is 5"):
        read(text)


@pytest.mark.long
@settings(max_examples=100)
@given(st.lists(trees, min_size=1, max_size=5))
def test_values_are_those_of_an_independent_reading(sources: list[list[str]]) -> None:
    values = block(sources, [0] * len(sources)).values
    expected = [read_tree(source_text(numbers(words)).decode()).value for words in sources]
    assert values_of(values).tolist() == expected


def test_a_tree_nested_more_deeply_than_any_is_refused() -> None:
    for depth in (10_000, 10_001):
        text = b"Source\tTarget\n" + b"[MIN " * depth + b"1 " + b"] " * depth + b"\t1\n"
        if depth == 10_000:
            assert read(text)[0].labels.tolist() == [1]
        else:
            with pytest.raises(DataError, match="10,001 operators inside each other"):
                read(text)


def test_a_line_longer_than_any_tree_is_refused_before_it_is_in_memory() -> None:
    class Zeros(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:
            buffer[:] = bytes(len(buffer))
            return len(buffer)

    with pytest.raises(DataError, match="line 1: it has more than 16,777,216 bytes"):
        list(read_tsv(io.BufferedReader(Zeros()), Path("basic_val.tsv")))


@pytest.mark.parametrize("kept", range(1, len(GOOD)))
def test_a_line_that_was_cut_off_is_named(kept: int) -> None:
    with pytest.raises(DataError, match=r"line 3, column .*truncated"):
        read(b"Source\tTarget\n" + GOOD + b"\n" + GOOD[:kept])


def test_a_file_is_streamed() -> None:
    """The rows before a malformed line have been handed out when it is reached."""
    text = io.BytesIO(b"Source\tTarget\n" + (GOOD + b"\n") * 2_500 + b"x\t1\n")
    rows = read_tsv(text, Path("long.tsv"))
    assert len(next(rows).labels) == len(next(rows).labels) == 1_000
    with pytest.raises(DataError, match="line 2502"):
        next(rows)
