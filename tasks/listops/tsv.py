"""The official files of ListOps, ``basic_{train,val,test}.tsv``: reading and writing.

A header ``Source<TAB>Target``, then a tree and its value per line. The tree is written as the
left-nested binary tree that the official generator builds: ``[MAX 3 5 ]`` is
``( ( ( [MAX 3 ) 5 ) ] )``. The round brackets say nothing that operator and ``]`` do not say:
reading deletes them, and keeps ``]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.listops.values import values_of
from tasks.listops.vocabulary import CLOSE, DIGIT, OPERATOR, SYMBOLS
from tasks.sources.files import Line, lines
from tasks.storage.rows import Rows, offsets_of

HEADER = b"Source\tTarget"
LINES = 1000  # read at once,
DEEPEST = 10_000  # operators inside each other; the published law has nine
BLOCK = 1 << 24  # or fewer where they have so many symbols together
ROUND = bytes.maketrans(b"()", b"  ")

NUMBER = {SYMBOLS[number].encode(): number for number in range(DIGIT, CLOSE + 1)}
LABELS = {str(digit).encode(): digit for digit in range(10)}
# How each symbol changes the number of open operators.
STEP = np.zeros(CLOSE + 1, dtype=np.int64)
STEP[OPERATOR:CLOSE], STEP[CLOSE] = 1, -1


def read_tsv(stream: IO[bytes], path: Path) -> Iterator[Rows]:
    """The trees of an official file, as uint8 numbers of ``vocabulary``.

    Args:
        stream: the file, open in binary; it is streamed, not loaded.
        path: its name, for messages.

    Raises:
        DataError: the file is unreadable or malformed, or a label is not the value of its tree;
            with line and column, from 1.
    """
    trees: list[bytes] = []
    labels: list[int] = []
    symbols = 0
    line = None
    for line in lines(stream, path):
        if line.number == 1:
            if line.content.strip() != HEADER:
                _fail(path, 1, 1, "the header 'Source<TAB>Target' is missing")
            continue
        tree, label = _parse(path, line)
        trees.append(tree)
        labels.append(label)
        symbols += len(tree)
        if len(trees) == LINES or symbols >= BLOCK:
            yield _checked_rows(path, line.number, trees, labels)
            trees, labels, symbols = [], [], 0
    if line is None:
        _fail(path, 1, 1, "the file is empty")
    if line.number == 1:
        _fail(path, 2, 1, "no line after the header")
    if trees:
        yield _checked_rows(path, line.number, trees, labels)


def read_trees(texts: Sequence[str]) -> Rows:
    """Trees as the official files write them, round brackets or not, with label 0.

    Args:
        texts: one at least, e.g. ``[MAX 2 [MIN 4 7 ] 0 ]``.

    Raises:
        DataError: one is malformed; with its number, as that of a line, and column, from 1.
    """
    given = [Line(row, f"{text}\t0".encode(), True) for row, text in enumerate(texts, 1)]
    try:
        trees = [_parse(Path("examples"), line)[0] for line in given]
    except DataError as error:
        what = str(error).splitlines()[0]
        raise DataError(f"{what}\n  try: the form [MAX 2 [MIN 4 7 ] 0 ]") from error
    return _rows(trees, [0] * len(trees))


def write_tsv(path: Path, blocks: Iterable[Rows]) -> None:
    """Write trees (symbols without eos) as an official file.

    Args:
        path: of the file; its folder exists.
        blocks: uint8 numbers of ``vocabulary``, and the values as labels.
    """
    with path.open("wb") as file:
        file.write(HEADER + b"\n")
        for rows in blocks:
            text, bounds = rows.values.tobytes(), rows.offsets.tolist()
            for row, label in enumerate(rows.labels.tolist()):
                source = source_text(text[bounds[row] : bounds[row + 1]])
                file.write(b"%s\t%d\n" % (source, label))


def source_text(tree: bytes) -> bytes:
    """The ``Source`` column of one tree, given as symbol numbers in order.

    Each argument closes one round bracket behind it, and so does ``]``; all of them are opened
    before the operator.
    """
    words: list[bytes] = []
    open_words: list[int] = []  # where the word of each open operator is,
    arguments: list[int] = []  # and how many arguments it has so far
    for symbol in tree:
        if OPERATOR <= symbol < CLOSE:
            open_words.append(len(words))
            arguments.append(0)
            words.append(SYMBOLS[symbol].encode())
            continue
        words.append(SYMBOLS[symbol].encode())
        if symbol == CLOSE:
            words.append(b")")
            operator = open_words.pop()
            words[operator] = b"( " * (arguments.pop() + 1) + words[operator]
        if open_words:  # a digit or a finished operator is an argument of the one around it
            words.append(b")")
            arguments[-1] += 1
    return b" ".join(words)


def _parse(path: Path, line: Line) -> tuple[bytes, int]:
    source, _, target = line.content.partition(b"\t")
    words = source.translate(ROUND).split()
    label = LABELS.get(target.strip())
    if label is None or not words:
        _explain(path, line)
    try:
        tree = bytes(map(NUMBER.__getitem__, words))
    except KeyError:
        _explain(path, line)
    if not _is_whole(np.frombuffer(tree, dtype=np.uint8)):
        _explain(path, line)
    return tree, label


def _is_whole(tree: NDArray[np.uint8]) -> bool:
    """Whether the symbols are exactly one tree, and every operator has an argument."""
    depth = np.cumsum(STEP[tree])
    childless = (STEP[tree[:-1]] > 0) & (tree[1:] == CLOSE)
    return bool(depth[-1] == 0 and (depth[:-1] > 0).all() and not childless.any())


def _rows(trees: list[bytes], labels: list[int]) -> Rows:
    lengths = np.array([len(tree) for tree in trees], dtype=np.int64)
    values = np.frombuffer(b"".join(trees), dtype=np.uint8)
    return Rows(values, offsets_of(lengths), np.array(labels, dtype=np.int64))


def _checked_rows(path: Path, last: int, trees: list[bytes], labels: list[int]) -> Rows:
    """The trees that end with line ``last``, whose labels are computed and compared."""
    rows = _rows(trees, labels)
    deepest = int(np.cumsum(STEP[rows.values]).max(initial=0))
    if deepest > DEEPEST:
        raise DataError(
            f"{path}, above line {last}: a tree of {deepest:,} operators inside each other.\n"
            f"  try: trees of at most {DEEPEST:,}"
        )
    values = values_of(rows.values)
    wrong = np.flatnonzero(values != rows.labels)
    if len(wrong):
        row = int(wrong[0])
        number = last - len(trees) + 1 + row
        what = f"the label is {labels[row]}, but the value of the tree is {values[row]}"
        raise DataError(
            f"{path}, line {number}: {what}.\n"
            "  try: compute the labels anew, or task.source=generated"
        )
    return rows


def _explain(path: Path, line: Line) -> NoReturn:
    """Find what ``_parse`` stumbled over, and raise a DataError that names the place."""
    number, text, cut = line.number, line.content, line.cut
    try:
        text.decode()
    except UnicodeDecodeError as error:
        column = len(text[: error.start].decode()) + 1
        _fail(path, number, column, f"byte 0x{text[error.start]:02x} is not UTF-8")
    source, tab, target = text.decode().partition("\t")
    if not tab:
        _fail(path, number, len(source) + 1, f"no tab and label after the tree{cut}")
    open_columns: list[int] = []
    words = list(re.finditer(r"[^\s()]+", source, re.ASCII))
    if not words:
        _fail(path, number, 1, "the tree is empty")
    for place, word in enumerate(words):
        column, symbol = word.start() + 1, NUMBER.get(word[0].encode())
        if symbol is None:
            _fail(path, number, column, f"unknown symbol {word[0][:20]!r}")
        if place and not open_columns:
            _fail(path, number, column, f"{word[0]!r} after the end of the tree")
        if symbol == CLOSE:
            if not open_columns:
                _fail(path, number, column, "']' without an operator")
            if STEP[NUMBER[words[place - 1][0].encode()]] > 0:
                _fail(path, number, column, "']' right after its operator, which has no argument")
            open_columns.pop()
        elif symbol >= OPERATOR:
            open_columns.append(column)
    if open_columns:
        _fail(path, number, open_columns[-1], f"an operator without its ']'{cut}")
    _fail(path, number, len(source) + 2, f"the label {target[:20]!r} is not one of 0 .. 9{cut}")


def _fail(path: Path, line: int, column: int, what: str) -> NoReturn:
    raise DataError(
        f"{path}, line {line}, column {column}: {what}.\n"
        "  try: mend the line or copy the file again, or task.source=generated"
    )
