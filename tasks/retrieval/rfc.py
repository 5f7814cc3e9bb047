"""A corpus of IETF RFCs and who cites whom: the stand-in for the ACL Anthology Network.

In one of two forms below data_dir. Packed: ``documents.jsonl`` and ``citations.tsv``, plain or
``.xz``, with the texts masked already. Plain: the IETF's own ``rfc<number>.txt``, in a folder or in
the ``RFC-all`` archive, from which ``rfc_text`` makes the same. Either way a text is what is left
without its header, the numbers of other documents, and boilerplate: without what would give the
answer away, and what all texts share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.retrieval.rfc_text import Parsed, mask, parse
from tasks.sources.archives import Source, find_or_say
from tasks.sources.files import Line, lines, opened, readable

PLACES = ("rfc", "RFC-all.tar.gz", "RFC-all.tar")  # below data_dir, in this order
WHAT = (
    "RFC-all.tar.gz (some hundred MB), all RFCs as text, from www.rfc-editor.org; as it is, or its "
    "rfc<number>.txt in the folder"
)
DOCUMENTS, CITATIONS = "documents.jsonl", "citations.tsv"
HEADER = b"citing_id\tcited_id\twhere\tlead4k"
ID = re.compile(rb" *\d{1,6} *")
LARGEST = 1 << 31  # bytes of a file in the packed form; documents.jsonl has 0.6 GB
LARGEST_TEXT = 1 << 24  # bytes of a document
YEARS = range(1968, 2200)  # RFC 31 is of April 1969, and bears February 1968
NAME = re.compile(r"rfc0*([1-9]\d*)\.txt", re.IGNORECASE)


class Corpus(NamedTuple):
    """``n`` documents in the order of their numbers, and the citations between them."""

    ids: NDArray[np.int64]  # (n,) RFC numbers, ascending
    years: NDArray[np.int64]  # (n,)
    texts: list[str]  # (n,) as a model may see them
    citations: NDArray[np.int64]  # (links, 2) places in ``ids``: citing, cited; sorted, no repeats


def locate(data_dir: Path, task: str) -> Source:
    """The folder or archive with the corpus.

    Args:
        data_dir: below which it is looked for.
        task: that needs it, for the message.

    Raises:
        DataError: there is none; it says what to get.
    """
    return find_or_say(task, data_dir, PLACES, WHAT, remedy="")


def read_corpus(source: Source, max_length: int) -> Corpus:
    """The corpus, in whichever form it lies there; listings of other documents are left out.

    Raises:
        DataError: there is no document, or a file is truncated or malformed.
    """
    documents = read_documents(source)
    packed = _packed(source, DOCUMENTS)
    citations = _packed(source, CITATIONS)
    if packed is not None and citations is None:
        raise DataError(
            f"{source.path} has {packed.name}, but no {CITATIONS}.\n  try: copy it there too"
        )
    links = (
        {(number, cited) for number, document in documents.items() for cited in document.cited}
        if packed is None or citations is None
        else _links(citations)
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


def read_documents(source: Source) -> dict[int, Parsed]:
    """The documents by their numbers, in whichever form they lie there.

    Raises:
        DataError: there is none, or a file is truncated or malformed.
    """
    packed = _packed(source, DOCUMENTS)
    documents = _from_texts(source) if packed is None else _from_packed(packed)
    if not documents:
        raise DataError(
            f"{source.path} has neither {DOCUMENTS} nor any rfc<number>.txt.\n  get: {WHAT}"
        )
    return documents


def _from_texts(source: Source) -> dict[int, Parsed]:
    documents: dict[int, Parsed] = {}
    for name, stream in source.members(lambda name: _number(name) is not None, LARGEST_TEXT):
        number = cast("int", _number(name))
        # The oldest texts hold stray bytes of typewriters and old code pages: not damage.
        raw = stream.read().decode(errors="replace")
        if not raw.strip():
            raise DataError(f"{source.path}: {name} is empty.\n  try: copy it again")
        parsed = parse(number, raw)
        if parsed is not None:
            documents[number] = parsed
    return documents


def _number(name: str) -> int | None:
    match = NAME.fullmatch(PurePosixPath(name).name)
    return int(match[1]) if match else None


def _from_packed(file: Path) -> dict[int, Parsed]:
    documents: dict[int, Parsed] = {}
    for line in _lines(file):
        document, parsed = _unpacked(file, line)
        if document in documents:
            _fail(file, line, f"RFC {document} was there before")
        documents[document] = parsed
    return documents


def _links(file: Path) -> set[tuple[int, int]]:
    """Which document cites which, by their numbers."""
    links: set[tuple[int, int]] = set()
    for line in _lines(file):
        columns = line.content.split(b"\t")
        if line.number == 1:
            if line.content.strip() != HEADER:
                _fail(file, line, f"the header {HEADER.decode()!r} is missing")
        elif len(columns) != 4 or not all(ID.fullmatch(each) for each in columns[:2]):
            _fail(file, line, "no two numbers of documents in four columns")
        else:
            links.add((int(columns[0]), int(columns[1])))
    return links


def _lines(file: Path) -> Iterator[Line]:
    line = None
    with opened(file, LARGEST) as stream:
        for line in lines(stream, file):
            yield line
    if line is None:
        raise DataError(f"{file} is truncated: it is empty.\n  try: copy the file again")


def _unpacked(file: Path, line: Line) -> tuple[int, Parsed]:
    """The document of one line, and its RFC number."""
    try:
        row = json.loads(line.content)
        text = without(row["text_masked"], row["boiler"])
        # Masked again: the packed text still has a few forms, such as "RFCs 1 to 3".
        parsed = Parsed(int(row["year"]), bool(row["listing"]), mask(text), frozenset())
        number = int(row["id"])
        if parsed.year not in YEARS or not ID.fullmatch(b"%d" % number):
            raise ValueError(f"RFC {number} of the year {parsed.year}")
        return number, parsed
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        _fail(file, line, f"no document ({type(error).__name__}: {str(error)[:200]})")


def without(text: str, spans: list[Any]) -> str:
    """A text without some stretches ``[start, end, kind]``, which may overlap."""
    kept, position = [], 0
    for start, end, _ in sorted(spans):
        kept.append(text[position : max(position, start)])
        position = max(position, end)
    return "".join([*kept, text[position:]])


def _packed(source: Source, name: str) -> Path | None:
    """The file of the packed form; None where the source has the plain one."""
    if source.is_archive:
        return None
    with readable(source.path):
        places = (source.path / name, source.path / f"{name}.xz")
        return next((file for file in places if file.exists()), None)


def _fail(file: Path, line: Line, what: str) -> NoReturn:
    raise DataError(f"{file}, line {line.number}: {what}{line.cut}.\n  try: copy the file again")
