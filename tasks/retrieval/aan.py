"""The official pairs of papers of the ACL Anthology Network (Radev et al. 2013; Tay et al. 2021).

``new_aan_pairs.{train,eval,test}.tsv`` in ``tsv_data`` of the Long Range Arena's archive, 8.5 GB:
no header; label (a float), two ids, two texts; UTF-8, columns parted by tabs, lines by newlines,
and nothing quoted: a quotation mark is a character like any other. One line is in memory at a time.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, NoReturn

from tasks.errors import DataError
from tasks.retrieval.pairs import Pair
from tasks.sources import lra
from tasks.sources.archives import Source
from tasks.sources.files import lines

# Below data_dir, in this order: what the archive unpacks to, then the archive.
PLACES = ("aan", "lra_release/tsv_data", "lra_release/lra_release/tsv_data", *lra.ARCHIVES)
WHAT = f"{lra.WHAT}. Of it tsv_data/new_aan_pairs.{{train,eval,test}}.tsv (8.5 GB) are needed"
# No checksum of the files is published; the paper's numbers of pairs are.
ROWS = {"train": 147_086, "val": 18_090, "test": 17_437}
FILES = {
    "train": "new_aan_pairs.train.tsv",
    "val": "new_aan_pairs.eval.tsv",
    "test": "new_aan_pairs.test.tsv",
}
COLUMNS = ("label", "id 1", "id 2", "text 1", "text 2")
LABELS = {b"0": 0, b"0.0": 0, b"1": 1, b"1.0": 1}
LARGEST = 1 << 36  # bytes of a file; train has 7 GB, and a line at a time is in memory
BYTES_PER_CHARACTER = 4  # at most, in UTF-8


def read_pairs(source: Source, max_length: int, is_official: bool) -> Iterator[tuple[str, Pair]]:
    """All pairs, those of train first, as ``(split, pair)``.

    Args:
        source: the folder or archive. An archive that has train behind the others is read twice.
        max_length: characters of a text that are needed; the rest is not even decoded.
        is_official: whether the published numbers of pairs are demanded.

    Raises:
        DataError: a file is missing, truncated, malformed (with its line) or not the official one.
    """
    yield from _read(source, ["train"], max_length, is_official)
    yield from _read(source, ["val", "test"], max_length, is_official)


def read_lines(stream: IO[bytes], place: str, max_length: int) -> Iterator[Pair]:
    """The pairs of one file.

    Args:
        stream: its content.
        place: its name, for messages.
        max_length: characters of a text that are needed.

    Raises:
        DataError: see ``read_pairs``.
    """
    number = 0
    for line in lines(stream, place):
        number, cut = line.number, line.cut
        columns = line.content.split(b"\t")
        if len(columns) != len(COLUMNS):
            _fail(place, number, f"{len(columns)} columns instead of {len(COLUMNS)}{cut}")
        label = LABELS.get(columns[0].strip())
        if label is None:
            _fail(place, number, f"the label {columns[0][:20]!r} is not 0.0 or 1.0{cut}")
        first, second = (
            _decoded(columns[column], max_length, place, number, COLUMNS[column] + cut)
            for column in (3, 4)
        )
        yield Pair(first, second, label)
    if number == 0:
        raise DataError(f"{place} is empty.\n  try: copy the file again")


def _read(
    source: Source, splits: list[str], max_length: int, is_official: bool
) -> Iterator[tuple[str, Pair]]:
    """The pairs of some splits, in the order in which the source has them."""
    missing = {FILES[split]: split for split in splits}
    for name, stream in source.members(lambda name: PurePosixPath(name).name in missing, LARGEST):
        split = missing.pop(PurePosixPath(name).name)
        count = 0
        for pair in read_lines(stream, f"{source.path}: {name}", max_length):
            count += 1
            yield split, pair
        if is_official and count != ROWS[split]:
            raise DataError(
                f"{source.path}: {FILES[split]} has {count:,} pairs, not the official "
                f"{ROWS[split]:,}.\n"
                "  try: copy it again; for other pairs on purpose task.stand_in=<a name of "
                "theirs>, which then stands beside every number"
            )
        if not missing:
            return  # what follows in an archive need not be unpacked
    raise DataError(
        f"{source.path} has no {', '.join(missing)}.\n"
        "  try: put all three files there, or the whole archive"
    )


def _decoded(text: bytes, max_length: int, place: str, line: int, column: str) -> str:
    """The first ``max_length`` characters or a few more."""
    if not text:
        _fail(place, line, f"{column} is empty")
    start = text[: BYTES_PER_CHARACTER * max_length]
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return decoder.decode(start, final=len(start) == len(text))
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        _fail(place, line, f"{column}: {byte} is not UTF-8")


def _fail(place: str, line: int, what: str) -> NoReturn:
    raise DataError(f"{place}, line {line}: {what}.\n  try: mend the line, or copy the file again")
