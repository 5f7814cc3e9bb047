"""Best and second best of each column, among our own rows and among all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chela.report.cells import Cell
from chela.report.report import Column, Row

ENOUGH = {1: 2, 2: 3}  # values that a column must have before a rank says something


def ranked(
    columns: Sequence[Column], ours: Sequence[Row], published: Sequence[Row]
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The rows with the ranks of their cells.

    Values are compared as they are printed, to two decimals: equal ones share their rank. A column
    of data that are not the benchmark's has no rank among all, nor has one without a value of ours.
    """
    own = [list(row.cells) for row in ours]
    theirs = [list(row.cells) for row in published]
    for place, column in enumerate(columns):
        mine = [cells[place].mean for cells in own]
        everyone = [*mine, *(cells[place].mean for cells in theirs)]
        if column.kind == "other" or all(value is None for value in mine):
            everyone = []
        for cells in own:
            cell = cells[place]
            cells[place] = replace(
                cell, rank_ours=_rank(cell, mine), rank_all=_rank(cell, everyone)
            )
        for cells in theirs:
            cells[place] = replace(cells[place], rank_all=_rank(cells[place], everyone))
    return (
        tuple(replace(row, cells=tuple(cells)) for row, cells in zip(ours, own, strict=True)),
        tuple(replace(r, cells=tuple(cells)) for r, cells in zip(published, theirs, strict=True)),
    )


def _rank(cell: Cell, values: Sequence[float | None]) -> int:
    if cell.mean is None:
        return 0
    known = [round(value, 2) for value in values if value is not None]
    distinct = sorted(set(known), reverse=True)
    for rank, value in enumerate(distinct[:2], start=1):
        if value == round(cell.mean, 2) and len(known) >= ENOUGH[rank]:
            return rank
    return 0
