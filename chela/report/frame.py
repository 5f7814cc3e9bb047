"""What a report says, before it has a form: one frame of cells, and what stands beside it."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import pandas as pd

from chela.records.collect import Run, Unread

LONGEST_ERROR = 300  # characters of an error below the table; the page has the whole of it
ERRORS = 2  # standard errors of the best value, within which another is not told from it

# What the frame knows of a cell, as columns of a CSV file; the types of those that are numbers.
FIELDS = (
    "origin",  # measured | published | unreadable (a record that is no cell: only file and error)
    "model",
    "variant",
    "configuration",  # hash, as in the folder's name
    "column",  # the heading: a task, an average, or a stand-in's own name
    "task",
    "data",
    "stand_in",
    "fingerprint",
    "protocol",
    "state",  # measured | published | computed | missing | running | interrupted | failed
    "metric",
    "unit",
    "direction",  # max | min: which values are better
    "value",  # mean over the finished seeds
    "std",  # over the seeds, n - 1
    "standard_error",  # of the mean
    "n_seeds",  # in the mean
    "seeds",  # all of them, with their status where they are not finished
    "test_n",
    "rank_ours",
    "rank_all",
    "parameters",
    "tokens_per_second",
    "peak_memory_bytes",
    "peak_memory_of",
    "steps",
    "seconds",
    "hardware",
    "source",
    "notes",
    "error",
    "folders",
)
INSIDE = ("key", "runs")  # the column's key, the runs behind the number
FLOATS = ("value", "std", "standard_error", "tokens_per_second", "seconds")
COUNTS = ("parameters", "peak_memory_bytes", "steps", "test_n", "n_seeds", "rank_ours", "rank_all")


@dataclass(frozen=True)
class Column:
    """A task with its data, or an average, and the metric of its values."""

    key: str
    title: str
    kind: str  # "lra": beside published values; "average": of these; "other": our own rows alone
    notes: tuple[str, ...] = ()
    metric: str = "accuracy"
    unit: str = "%"
    direction: str = "max"  # or "min": which values are better


@dataclass(frozen=True)
class Row:
    """A model: in each column one configuration of it."""

    model: str
    label: str = ""  # what distinguishes the configuration from others of the model
    notes: tuple[str, ...] = ()
    source: int | None = None  # number of a published row's source, from 1

    @property
    def name(self) -> str:
        """``"chela"`` or ``"chela (depth=3)"``."""
        return f"{self.model} ({self.label})" if self.label else self.model


Line = tuple[Row, list[Any]]  # its cells: tuples with the names of FIELDS and INSIDE


@dataclass(frozen=True)
class Report:
    """All that a format prints; no format computes anything of its own."""

    cells: pd.DataFrame  # of FIELDS and INSIDE: rows by columns, our own rows first
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]  # our own, then the published
    remarks: tuple[str, ...]  # on the whole
    sources: tuple[str, ...]  # of the published rows, from 1
    unread: tuple[Unread, ...]

    @cached_property
    def ours(self) -> list[Line]:
        """Our own rows, each with its cells, one per column."""
        return [line for line in self._lines if line[0].source is None]

    @cached_property
    def published(self) -> list[Line]:
        """The published rows, likewise."""
        return [line for line in self._lines if line[0].source is not None]

    @cached_property
    def marks(self) -> dict[str, str]:
        """The text of every note and its mark, ``a`` to ``z``, then ``aa``, in reading order."""
        texts = chain(
            *(column.notes for column in self.columns),
            *(chain(row.notes, *(cell.notes for cell in cells)) for row, cells in self._lines),
        )
        return {text: letters(number) for number, text in enumerate(dict.fromkeys(texts))}

    @property
    def unfinished(self) -> list[str]:
        """A sentence per run without a number."""
        return [
            f"{row.name} on {cell.column}, seed {run.seed}: {run.status}{_reason(run)} "
            f"({run.folder})"
            for row, cells in self.ours
            for cell in cells
            for run in cell.runs
            if run.value is None
        ]

    @cached_property
    def _lines(self) -> list[Line]:
        cells, width = list(self.cells.itertuples(name="Cell")), len(self.columns)
        return [
            (row, cells[number * width : (number + 1) * width])
            for number, row in enumerate(self.rows)
        ]

    @property
    def title(self) -> str:
        """Of the whole: the benchmark's name is for its own data alone."""
        is_lra = any(column.kind == "lra" for column in self.columns)
        return "Long Range Arena" if is_lra else "Results"

    @property
    def metric(self) -> str:
        """``"accuracy (%)"`` where all columns have that one; else their titles must say it."""
        found = {f"{each.metric} ({each.unit})" for each in self.columns}
        return found.pop() if len(found) == 1 else ""

    def heading(self, column: Column) -> str:
        """The title, with the metric unless all columns have the same."""
        if self.metric or not column.metric:
            return column.title
        return f"{column.title}, {column.metric} ({column.unit})"


def typed(cells: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Cells as a frame: what is not known is NaN among numbers, and empty among texts."""
    frame = pd.DataFrame(list(cells), columns=[*FIELDS, *INSIDE], dtype=object)
    texts = frame.columns.difference([*FLOATS, *COUNTS])
    frame[texts] = frame[texts].where(frame[texts].notna(), "")
    for counted in ("n_seeds", "rank_ours", "rank_all"):
        frame[counted] = frame[counted].where(frame[counted].notna(), 0)
    # counts stay Python's integers: those of a record may have any size
    return frame.astype(dict.fromkeys(FLOATS, "float64"))


def decimals(unit: str) -> int:
    """Of a value in print: bits and nats of a token differ in the third, the rest as published."""
    return 3 if unit in ("bits", "nats") else 2


def ranked(cells: pd.DataFrame, columns: Iterable[Column]) -> pd.DataFrame:
    """The frame with the ranks of its cells, among our own rows and among all.

    A column of data that are not the benchmark's has no rank among all, nor has one without a value
    of ours.
    """
    cells = cells.copy()
    for column in columns:
        known = cells[(cells["key"] == column.key) & cells["value"].notna()]
        ours = known[known["origin"] == "measured"]
        cells.loc[ours.index, "rank_ours"] = ranks(ours, column.direction)
        if column.kind != "other" and len(ours):
            cells.loc[known.index, "rank_all"] = ranks(known, column.direction)
    return cells


def ranks(cells: pd.DataFrame, direction: str) -> pd.Series:
    """1 for the best and all that cannot be told from it, 2 for the next likewise, else 0.

    That is what lies within ``ERRORS`` standard errors of it (a published value has none), or is
    printed alike. Where that is so of all that is left, nothing is the best of it.
    """
    found = pd.Series(0, index=cells.index)
    digits = max((decimals(each) for each in cells["unit"]), default=2)
    for rank in (1, 2):
        values = cells["value"][found == 0]
        if values.empty:
            break
        best = values.idxmax() if direction == "max" else values.idxmin()
        alike = (values - values[best]).abs() <= ERRORS * cells["standard_error"][best]
        alike |= values.round(digits) == round(values[best], digits)
        if alike.all():
            break
        found[alike.index[alike]] = rank
    return found


def letters(index: int) -> str:
    """``0 -> a``, ``25 -> z``, ``26 -> aa``: as the columns of a spreadsheet."""
    before, last = divmod(index, 26)
    return (letters(before - 1) if before else "") + string.ascii_lowercase[last]


def _reason(run: Run) -> str:
    if run.status == "failed":
        error = " ".join((run.error or "no reason recorded").split())
        return f": {error if len(error) <= LONGEST_ERROR else error[:LONGEST_ERROR] + '…'}"
    if run.status == "running":
        return ", or killed without a word"
    done, planned = run.number("training.steps"), run.number("training.planned_steps")
    return "" if done is None or planned is None else f" at step {done:,.0f} of {planned:,.0f}"
