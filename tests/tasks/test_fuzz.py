"""Whatever stands in a file of data, reading it succeeds or says what is wrong: nothing else.

``pytest tests/tasks/test_fuzz.py --fuzz 1000 --hypothesis-show-statistics`` tells how many inputs
were read and how many refused.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from tasks.errors import DataError
from tasks.image import cifar_files, mnist_files
from tasks.listops.tsv import read_tsv
from tasks.pathfinder import official
from tasks.pathfinder.png import Unfit, grey_levels
from tasks.retrieval import aan, rfc
from tasks.retrieval.rfc_text import parse
from tasks.sources.archives import Source
from tasks.storage.columns import stored_rows
from tasks.storage.meta import CHECKSUM, Meta, checksum_of
from tasks.storage.store import load, prepare
from tasks.text.reviews import read_files
from tests.tasks.pathfinder_release import release
from tests.tasks.rfcs import made, write_packed
from tests.tasks.samples import fingerprint_of, recipe
from tests.tasks.small_images import idx
from tests.tasks.test_pathfinder_png import PALETTE, noise, written

fuzz = settings.get_profile("fuzz")
PACKERS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, bz2.compress, lzma.compress]


@st.composite
def damaged(draw: Any, *whole: bytes) -> bytes:
    """A good file, some stretches of it replaced by others; or anything at all."""
    content = draw(st.sampled_from(whole))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    others = st.binary(max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8, content[:512]])
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 4]))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 9))
        content = content[:start] + draw(others) + content[start + length :]
    return content


@contextmanager
def read_or_refused(error: type[Exception] = DataError) -> Iterator[None]:
    try:
        yield
        event("read")
    except error as said:
        assert "try:" in str(said) or "get:" in str(said)
        event("refused")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        yield Path(name)


LISTOPS = b"Source\tTarget\n( ( ( [MAX 3 ) 5 ) ] )\t5\n( ( ( [SM 1 ) ( ( [MED 2 ) ] ) ) ] )\t3\n"
WORDS = st.lists(st.sampled_from([*b"[MIN [MED [SM ] ( ) 0 5 9".split(), b"\t", b"\n", b"x"]))


@fuzz
@given(damaged(LISTOPS) | WORDS.map(lambda words: b"Source\tTarget\n" + b" ".join(words)))
def test_listops_trees(content: bytes) -> None:
    with read_or_refused():
        for rows in read_tsv(io.BytesIO(content), Path("basic_val.tsv")):
            assert len(rows.values) == rows.offsets[-1]
            assert set(rows.labels) <= set(range(10))


PAIRS = "1.0\tP00\tP01\tone téxt\tanother\n0\tP02\tP03\tone\ttwo \r\n".encode()


@fuzz
@given(damaged(PAIRS), st.integers(2, 20))
def test_pairs_of_papers(content: bytes, length: int) -> None:
    with read_or_refused():
        for pair in aan.read_lines(io.BytesIO(content), "new_aan_pairs.train.tsv", length):
            assert pair.first
            assert pair.label in (0, 1)


class Lists:
    def __init__(self, lists: dict[str, bytes]) -> None:
        self.lists = lists


LIST = release(1, 3)["metadata/0.npy"]


@fuzz
@given(damaged(LIST), st.just("0.npy") | st.text(max_size=9).map(lambda name: f"{name}.npy"))
def test_lists_of_pictures(content: bytes, name: str) -> None:
    with read_or_refused():
        for one in official._listed(Lists({name: content}), "set/"):  # type: ignore[arg-type]
            assert not one.image.startswith("/")
            assert ".." not in one.image.split("/")


KINDS = [(d, 0) for d in (1, 2, 4, 8, 16)] + [(8, 2), (16, 2), (8, 4), (8, 6), (16, 6)]
PICTURES = [written(noise(depth, kind), depth, kind) for depth, kind in KINDS]


@fuzz
@given(damaged(*PICTURES, *(written(noise(d, 3), d, 3, PALETTE) for d in (1, 2, 4, 8))))
def test_pictures(content: bytes) -> None:
    with read_or_refused(Unfit):
        levels = grey_levels(content, 8)
        assert levels.shape == (8, 8)
        assert levels.dtype == np.uint8


BATCH: dict[Any, Any] = {
    b"labels": [3, 7],
    b"data": np.arange(2 * 3072).astype(np.uint8).reshape(2, 3072),
    "filenames": [b"1.png", "2.png", 1.5, None, True, 1 << 70, np.int64(3), (1, 2, (3,))],
}
BATCHES = [pickle.dumps(BATCH, protocol) for protocol in range(6)]
# Without the pixels almost every change is one of the operations.
SMALL = [
    pickle.dumps({**BATCH, b"data": np.zeros((2, 2), np.uint8)}, protocol) for protocol in range(6)
]


@fuzz
@given(damaged(*BATCHES, *SMALL))
def test_batches_of_cifar(content: bytes) -> None:
    with read_or_refused():
        images = cifar_files._images(content, "data_batch_1")
        assert images.pixels.shape == (len(images.labels), 3, 1024)
        assert set(images.labels) <= set(range(10))


IMAGES, LABELS = (
    idx(np.zeros(shape, np.uint8)) for shape in ((2, mnist_files.SIDE, mnist_files.SIDE), (2,))
)


@fuzz
@given(
    damaged(IMAGES, gzip.compress(IMAGES)), damaged(LABELS, gzip.compress(LABELS)), st.booleans()
)
def test_files_of_mnist(folder: Path, images: bytes, labels: bytes, packed: bool) -> None:
    for prefix in ("train", "t10k"):
        for name, content in (("images-idx3", images), ("labels-idx1", labels)):
            for end in ("", ".gz"):
                (folder / f"{prefix}-{name}-ubyte{end}").unlink(missing_ok=True)
            end = ".gz" if packed else ""
            (folder / f"{prefix}-{name}-ubyte{end}").write_bytes(content)
    with read_or_refused():
        for _, found in mnist_files.read_files(folder, is_official=False):
            assert found.pixels.shape == (len(found.labels), 1, 784)


def tar(form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name in ("set/a", "set/" + "long/" * 40 + "b", "set/ü"):
            member = tarfile.TarInfo(name)
            member.size = 5
            archive.addfile(member, io.BytesIO(b"12345"))
        sparse = {"GNU.sparse.map": "0,1,4,1", "GNU.sparse.size": "9", "GNU.sparse.numblocks": "2"}
        member = tarfile.TarInfo("set/sparse")
        member.size, member.pax_headers = 2, sparse
        archive.addfile(member, io.BytesIO(b"xy"))
    return buffer.getvalue()[:8192]  # all the rest is zeros


TARS = [tar(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]


def summed(content: bytes) -> bytes:
    """With the checksum of each header right, so that what is damaged is believed."""
    blocks = [content[start : start + 512] for start in range(0, len(content), 512)]
    for number, block in enumerate(blocks):
        if block[257:262] == b"ustar":
            total = sum(block[:148]) + sum(block[156:]) + 8 * 32
            blocks[number] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)


@fuzz
@given(
    damaged(*TARS).map(summed) | damaged(*TARS),
    st.sampled_from(PACKERS),
    st.none() | st.integers(0, 300),
)
def test_archives(folder: Path, content: bytes, pack: Any, flip: int | None) -> None:
    packed = bytearray(pack(content))
    if flip is not None and pack is not bytes and packed:
        packed[flip % len(packed)] ^= 1 << flip % 8
    (folder / "set.tar").write_bytes(packed)
    with read_or_refused():
        for _, stream in Source(folder / "set.tar").members(lambda name: True, 1000):
            assert len(stream.read()) <= 1000


def zip_of(method: int, flags: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in ("set/a", "set/ü"):
            archive.writestr(name, b"12345" * 9)
    content = bytearray(buffer.getvalue())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # in front of each, and in the directory
        start = content.find(mark)
        while start >= 0:
            content[start + place] |= flags
            start = content.find(mark, start + 1)
    return bytes(content)


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ZIPS = [*map(zip_of, METHODS), zip_of(zipfile.ZIP_STORED, 1), zip_of(zipfile.ZIP_STORED, 64)]


@fuzz
@given(damaged(*ZIPS))
@example(zip_of(zipfile.ZIP_STORED, 1))  # which says that it is encrypted
def test_zips(folder: Path, content: bytes) -> None:
    (folder / "set.zip").write_bytes(content)
    with read_or_refused():
        for _, stream in Source(folder / "set.zip").members(lambda name: True, 1000):
            assert len(stream.read()) <= 1000


@fuzz
@given(damaged("A réview <br />".encode(), b"\xef\xbb\xbfone"))
def test_reviews(folder: Path, content: bytes) -> None:
    for split in ("train", "test"):
        for label in ("neg", "pos"):
            place = folder / "aclImdb" / split / label
            place.mkdir(parents=True, exist_ok=True)
            (place / "0_9.txt").write_bytes(content)
    with read_or_refused():
        found = read_files(Source(folder / "aclImdb"))
        assert all(review.text.decode() for split in found.values() for review in split)


def packed_rfcs() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        place = write_packed(Path(name) / "rfc", *made())
        return {file: (place / file).read_bytes() for file in (rfc.DOCUMENTS, rfc.CITATIONS)}


RFCS = packed_rfcs()
DOCUMENT = RFCS[rfc.DOCUMENTS].splitlines(keepends=True)[0]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)
ROW = st.fixed_dictionaries(
    dict.fromkeys(("id", "year", "listing", "text_masked", "boiler"), JSON)
    | {"id": st.integers(-1, 9) | JSON, "year": st.integers(1968, 1972) | JSON}
    | {"boiler": st.just([]) | JSON, "text_masked": st.text() | JSON}
).map(lambda row: json.dumps(row).encode())


@fuzz
@given(damaged(DOCUMENT) | ROW, damaged(b"\n".join(RFCS[rfc.CITATIONS].splitlines()[:4]) + b"\n"))
def test_packed_rfcs(folder: Path, documents: bytes, citations: bytes) -> None:
    place = folder / "rfc"
    place.mkdir(exist_ok=True)
    (place / rfc.DOCUMENTS).write_bytes(documents)
    (place / rfc.CITATIONS).write_bytes(citations)
    with read_or_refused():
        corpus = rfc.read_corpus(Source(place), 100)
        assert len(corpus.ids) == len(corpus.texts) == len(corpus.years)


PARTS = ["RFC ", "rfc", "1", "793, ", "and ", "\n", "\n\n", " " * 9, "[", "]", "Jan 1970", "STD-"]
PARTS += ["Status of this Memo", "Contents", "....12", "Network Working Group", "[Page 3]", "é"]


@fuzz
@given(st.lists(st.sampled_from(PARTS), max_size=300).map("".join) | st.text())
def test_texts_of_rfcs(text: str) -> None:
    parsed = parse(7, text)
    event("read" if parsed else "without a date")
    assert parsed is None or 7 not in parsed.cited


@fuzz
@given(st.data())
def test_prepared_data(folder: Path, data: st.DataObject) -> None:
    place = folder / "prepared"
    prepare(place, recipe(), show=False)
    name = data.draw(st.sampled_from(["train.arrow", "meta.json"]))
    whole = (place / name).read_bytes()
    (place / name).write_bytes(data.draw(damaged(whole)))
    try:
        with read_or_refused():
            assert sum(len(rows.labels) for rows in stored_rows(load(place).splits["train"])) == 4
            assert fingerprint_of(place) == load(place).meta.fingerprint
    finally:
        (place / name).write_bytes(whole)


META = json.loads(Meta("toy", 1, "made", False, {}, "", {}, {}, 0.5).to_json())
VALUES = (
    st.none() | st.integers() | st.text(max_size=3) | st.dictionaries(st.text(max_size=2), JSON)
)


@fuzz
@given(st.dictionaries(st.sampled_from([*META, "more"]), VALUES, max_size=2))
def test_what_another_version_says_of_prepared_data(changes: dict[str, Any]) -> None:
    """With a checksum that is right."""
    content = {key: value for key, value in META.items() if key != CHECKSUM} | changes
    content.pop(CHECKSUM, None)
    text = json.dumps(content | {CHECKSUM: checksum_of(content)})
    try:
        assert Meta.from_json(text).splits == content["splits"]
        event("read")
    except ValueError:
        event("refused")
