"""The corpus of RFCs in its forms; damage is named."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import DataError
from tasks.retrieval.rfc import locate, read_corpus, without
from tasks.sources.archives import Source
from tests.tasks.rfcs import made, official, write_packed


def same(one, other) -> bool:
    arrays = all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    return arrays and one.texts == other.texts


def test_packed_plain_and_compressed_are_the_same(tmp_path: Path) -> None:
    rows, links = made()
    plain = read_corpus(Source(write_packed(tmp_path / "plain", rows, links)), 4000)
    packed = read_corpus(Source(write_packed(tmp_path / "xz", rows, links, True)), 4000)
    assert same(plain, packed)
    kept = [row for row in rows if not row["listing"]]
    assert plain.ids.tolist() == [row["id"] for row in kept]
    assert plain.years.tolist() == [row["year"] for row in kept]
    for row, text in zip(kept, plain.texts, strict=True):
        assert "Copyright" not in text
        assert str(row["text_masked"]).endswith(text)
    listed = {row["id"] for row in rows if row["listing"]}
    expected = [link for link in links if not listed & set(link)]
    assert plain.ids[plain.citations].tolist() == sorted(expected)


def test_a_packed_text_is_masked_again_and_cut(tmp_path: Path) -> None:
    rows, links = made(2)
    rows[0]["text_masked"], rows[0]["boiler"] = "abXXXcd see RFCs 1 to 3 now", [[2, 5, "toc"]]
    corpus = read_corpus(Source(write_packed(tmp_path, rows, links)), 14)
    assert corpus.texts[0] == "abcd see [RFC]"


@pytest.mark.parametrize(
    ("spans", "left"),
    [([], "abcdefg"), ([[1, 3, "x"]], "adefg"), ([[4, 6, "x"], [0, 2, "y"]], "cdg")],
)
def test_spans_are_cut_out(spans, left) -> None:
    assert without("abcdefg", spans) == left


def test_overlapping_spans_are_cut_once() -> None:
    assert without("abcdefg", [[1, 5, "x"], [2, 4, "y"], [3, 6, "z"]]) == "ag"


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_texts_as_published_are_read(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "rfc"
    folder.mkdir()
    bodies = {
        10: "The first.",
        20: "It follows RFC 10, RFC 20 and RFC 99.",
        30: "After RFCs 10\n   and 20.",
    }
    for number, body in bodies.items():
        (folder / f"rfc{number}.txt").write_text(official(number, "T", 1990 + number // 10, body))
    (folder / "rfc-index.txt").write_text("RFC 10 RFC 20")
    (folder / "rfc5.txt").write_bytes(b"Network Working Group\n\nNo date, \xff.\n")
    source = Source(folder)
    if form == "archive":
        with tarfile.open(tmp_path / "RFC-all.tar.gz", "w:gz") as archive:
            archive.add(folder, arcname=".")
        source = Source(tmp_path / "RFC-all.tar.gz")
    corpus = read_corpus(source, 4000)
    assert corpus.ids.tolist() == [10, 20, 30]
    assert corpus.years.tolist() == [1991, 1992, 1993]
    assert corpus.ids[corpus.citations].tolist() == [[20, 10], [30, 10], [30, 20]]
    assert "It follows [RFC]" in corpus.texts[1]


def test_the_places_are_searched_in_their_order(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"RFC-all\.tar\.gz(.|\n)*task=retrieval task\.data=rfc"):
        locate(tmp_path, "retrieval task.data=rfc")
    (tmp_path / "RFC-all.tar.gz").touch()
    assert locate(tmp_path, "retrieval task.data=rfc").is_archive
    (tmp_path / "rfc").mkdir()
    assert locate(tmp_path, "retrieval task.data=rfc").path == tmp_path / "rfc"


def broken(tmp_path: Path, file: str, content: bytes) -> Source:
    folder = write_packed(tmp_path / "rfc", *made(5))
    (folder / file).write_bytes(content)
    return Source(folder)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"id": 1', "documents.jsonl, line 1: no document .*truncated"),
        (b'{"id": 1}\n', "documents.jsonl, line 1: no document .*text_masked"),
        (b"[]\n", "documents.jsonl, line 1: no document"),
        (b'{"text_masked": "\xff"}\n', "documents.jsonl, line 1: no document .*utf-8"),
        (b"", "documents.jsonl is truncated: it is empty"),
        (b"[" * 100_000 + b"\n", "line 1: no document .*Recursion"),
        (b'{"id": 1e9, "year": 1999, "listing": 0, "text_masked": "", "boiler": []}', "RFC 10000"),
    ],
)
def test_a_malformed_document_is_named(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what):
        read_corpus(broken(tmp_path, "documents.jsonl", content), 100)


HEADER = b"citing_id\tcited_id\twhere\tlead4k\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"2\t1\tt\t0\n", "line 1: the header"),
        (HEADER + b"2\t1\n", "line 2: no two numbers"),
        (HEADER + b"two\t1\tt\t0\n", "line 2: no two numbers"),
        (HEADER + b"2\t1\tt\t0\n3\t", "line 3: no two numbers .*truncated"),
    ],
)
def test_a_malformed_citation_is_named(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(DataError, match=rf"citations\.tsv, {what}"):
        read_corpus(broken(tmp_path, "citations.tsv", content), 100)


@pytest.mark.parametrize("name", ["documents.jsonl.xz", "citations.tsv.xz"])
@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_truncated_packed_file_is_named(tmp_path: Path, name: str, kept: float) -> None:
    folder = write_packed(tmp_path / "rfc", *made(), compress=True)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=rf"{name} is truncated"):
        read_corpus(Source(folder), 100)


def test_missing_citations_and_empty_texts_are_named(tmp_path: Path) -> None:
    folder = write_packed(tmp_path / "rfc", *made(5))
    (folder / "citations.tsv").unlink()
    with pytest.raises(DataError, match=r"no citations\.tsv"):
        read_corpus(Source(folder), 100)
    (folder / "documents.jsonl").unlink()
    with pytest.raises(DataError, match="neither documents"):
        read_corpus(Source(folder), 100)
    (folder / "rfc7.txt").touch()
    with pytest.raises(DataError, match=r"rfc7\.txt is empty"):
        read_corpus(Source(folder), 100)
