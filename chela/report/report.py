"""What a report says, before it has a form: columns, rows, cells, and the notes beside them."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass

from chela.records.collect import Unread
from chela.report.cells import Cell


@dataclass(frozen=True)
class Column:
    """A task with its data, or an average."""

    key: str
    title: str
    kind: str  # "lra": beside published values; "average": of these; "other": our own rows alone
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A model: in each column one configuration of it."""

    model: str
    cells: tuple[Cell, ...]  # one per column
    label: str = ""  # what distinguishes the configuration from others of the model
    marks: tuple[str, ...] = ()
    source: int | None = None  # number of a published row's source, from 1

    @property
    def name(self) -> str:
        """``"chela"`` or ``"chela (depth=3)"``."""
        return f"{self.model} ({self.label})" if self.label else self.model


@dataclass(frozen=True)
class Report:
    """All that a format prints; no format computes anything of its own."""

    columns: tuple[Column, ...]
    ours: tuple[Row, ...]
    published: tuple[Row, ...]
    notes: tuple[tuple[str, str], ...]  # mark, text
    remarks: tuple[str, ...]  # on the whole
    sources: tuple[str, ...]  # of the published rows, from 1
    unfinished: tuple[str, ...]  # a sentence per run without a number
    unread: tuple[Unread, ...]

    def cells(self) -> Iterator[tuple[Row, Column, Cell]]:
        """Every cell of our own rows, row after row."""
        for row in self.ours:
            for column, cell in zip(self.columns, row.cells, strict=True):
                yield row, column, cell


class Notes:
    """Texts and their marks; the same text has the same mark."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """``a`` to ``z`` in the order of first use, then ``aa``, ``ab``, ..."""
        if text not in self._marks:
            self._marks[text] = letters(len(self._marks))
        return self._marks[text]

    def listed(self) -> tuple[tuple[str, str], ...]:
        """Marks and texts, in the order of first use."""
        return tuple((mark, text) for text, mark in self._marks.items())


def letters(index: int) -> str:
    """``0 -> a``, ``25 -> z``, ``26 -> aa``: as the columns of a spreadsheet."""
    before, last = divmod(index, 26)
    return (letters(before - 1) if before else "") + string.ascii_lowercase[last]
