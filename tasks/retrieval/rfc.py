"""A corpus of IETF RFCs and who cites whom: the stand-in for the ACL Anthology Network.

In one of two forms below data_dir. Packed: ``documents.jsonl`` and ``citations.tsv``, plain or
``.xz``, with the texts masked already. Plain: the IETF's own ``rfc<number>.txt``, in a folder or in
the ``RFC-all`` archive, from which ``rfc_text`` makes the same. Either way a text is what is left
without its header, the numbers of other documents, and boilerplate: without what would give the
answer away, and what all texts share.
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.retrieval.rfc_text import Parsed, mask, parse
from tasks.sources.archives import Source, find_or_say, readable

PLACES = ("rfc", "RFC-all.tar.gz", "RFC-all.tar")  # below data_dir, in this order
WHAT = (
    "RFC-all.tar.gz (some hundred MB), all RFCs as text, from www.rfc-editor.org; as it is, or its "
    "rfc<number>.txt in the folder"
)
DOCUMENTS, CITATIONS = "documents.jsonl", "citations.tsv"
HEADER = b"citing_id\tcited_id\twhere\tlead4k"
NAME = re.compile(r"rfc0*([1-9]\d*)\.txt", re.IGNORECASE)


class Corpus(NamedTuple):
    """``n`` documents in the order of their numbers, and the citations between them."""

    ids: NDArray[np.int64]  # (n,) RFC numbers, ascending
    years: NDArray[np.int64]  # (n,)
    texts: list[str]  # (n,) as a model may see them
    citations: NDArray[np.int64]  # (links, 2) places in ``ids``: citing, cited; sorted, no repeats


def locate(data_dir: Path) -> Source:
    """The folder or archive with the corpus.

    Raises:
        DataError: there is none; it says what to get.
    """
    return find_or_say("retrieval task.data=rfc", data_dir, PLACES, WHAT, remedy="")


def read_corpus(source: Source, max_length: int) -> Corpus:
    """The corpus, in whichever form it lies there; listings of other documents are left out.

    Args:
        source: as from ``locate``.
        max_length: characters of a text that are kept.

    Raises:
        DataError: there is no document, or a file is truncated or malformed.
    """
    packed = None if source.is_archive else _packed(source.path, DOCUMENTS)
    if packed is None:
        found = _from_texts(source)
    else:
        citations = _packed(source.path, CITATIONS)
        if citations is None:
            raise DataError(
                f"{source.path} has {packed.name}, but no {CITATIONS}.\n  try: copy it there too"
            )
        found = _from_packed(packed, citations)
    documents, links = found
    if not documents:
        raise DataError(
            f"{source.path} has neither {DOCUMENTS} nor any rfc<number>.txt.\n  get: {WHAT}"
        )
    kept = sorted(number for number, document in documents.items() if not document.listing)
    place = {number: row for row, number in enumerate(kept)}
    known = {(place[a], place[b]) for a, b in links if a in place and b in place and a != b}
    return Corpus(
        ids=np.array(kept, dtype=np.int64),
        years=np.array([documents[number].year for number in kept], dtype=np.int64),
        texts=[documents[number].text[:max_length] for number in kept],
        citations=np.array(sorted(known), dtype=np.int64).reshape(-1, 2),
    )


Found = tuple[dict[int, Parsed], set[tuple[int, int]]]


def _from_texts(source: Source) -> Found:
    documents: dict[int, Parsed] = {}
    links: set[tuple[int, int]] = set()
    for name, stream in source.members(lambda name: _number(name) is not None):
        number = cast("int", _number(name))
        # The oldest texts hold stray bytes of typewriters and old code pages: not damage.
        raw = stream.read().decode(errors="replace")
        if not raw.strip():
            raise DataError(f"{source.path}: {name} is empty.\n  try: copy it again")
        parsed = parse(number, raw)
        if parsed is not None:
            documents[number] = parsed
            links |= {(number, cited) for cited in parsed.cited}
    return documents, links


def _number(name: str) -> int | None:
    match = NAME.fullmatch(PurePosixPath(name).name)
    return int(match[1]) if match else None


def _from_packed(documents_file: Path, citations_file: Path) -> Found:
    documents: dict[int, Parsed] = {}
    with _lines(documents_file) as lines:
        for number, line in enumerate(lines, start=1):
            document, parsed = _unpacked(documents_file, number, line)
            documents[document] = parsed
    links: set[tuple[int, int]] = set()
    with _lines(citations_file) as lines:
        for number, line in enumerate(lines, start=1):
            columns = line.rstrip(b"\r\n").split(b"\t")
            if number == 1:
                if line.rstrip(b"\r\n") != HEADER:
                    _fail(citations_file, 1, f"the header {HEADER.decode()!r} is missing", line)
            elif len(columns) != 4 or not (columns[0].isdigit() and columns[1].isdigit()):
                _fail(citations_file, number, "no two numbers of documents in four columns", line)
            else:
                links.add((int(columns[0]), int(columns[1])))
    return documents, links


def _unpacked(file: Path, number: int, line: bytes) -> tuple[int, Parsed]:
    """The document of one line, and its RFC number."""
    try:
        row = json.loads(line)
        text = without(row["text_masked"], row["boiler"])
        # Masked again: the packed text still has a few forms, such as "RFCs 1 to 3".
        parsed = Parsed(int(row["year"]), bool(row["listing"]), mask(text), frozenset())
        return int(row["id"]), parsed
    except (ValueError, KeyError, TypeError) as error:
        _fail(file, number, f"no document ({type(error).__name__}: {error})", line)


def without(text: str, spans: list[Any]) -> str:
    """A text without some stretches ``[start, end, kind]``, which may overlap."""
    kept, position = [], 0
    for start, end, _ in sorted(spans):
        kept.append(text[position : max(position, start)])
        position = max(position, end)
    return "".join([*kept, text[position:]])


def _packed(folder: Path, name: str) -> Path | None:
    for file in (folder / name, folder / f"{name}.xz"):
        if file.exists():
            return file
    return None


@contextmanager
def _lines(file: Path) -> Iterator[BinaryIO]:
    """A plain or compressed file; errors while it is read name it."""
    with readable(file), lzma.open(file) if file.suffix == ".xz" else file.open("rb") as stream:
        yield cast("BinaryIO", stream)


def _fail(file: Path, line: int, what: str, content: bytes) -> NoReturn:
    cut = "" if content.endswith(b"\n") else "; the file ends here, it may be truncated"
    raise DataError(f"{file}, line {line}: {what}{cut}.\n  try: copy the file again")
