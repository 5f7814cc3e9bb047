"""The table as a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from chela.report.frame import ERRORS, Report
from chela.report.render import shown

FRAME, EDGE = 3, 1  # characters that rich draws for each column, and once
NARROWEST = 20  # characters; names of rows are not folded to less
STYLES = {"best": "bold", "second": "underline"}
CAPTION = (
    f"bold best, underlined second of our rows, and what is within {ERRORS} standard errors; "
    "★ best, ☆ second of all"
)


def terminal_tables(report: Report, width: int) -> list[Table]:
    """One table, or several with a part of the columns each where one is too wide.

    Published rows first, our own last: they stand right above the prompt. Names of rows are folded
    where that helps, numbers never. Each of several tables has the rows with something in it.
    """
    names, columns = _widths(report)
    room = width - EDGE - FRAME
    in_one = NARROWEST + sum(each + FRAME for each in columns) <= room
    folded = min(names, NARROWEST if in_one else max(NARROWEST, width // 3))
    parts: list[list[int]] = [[]]
    for place, column in enumerate(columns):
        taken = sum(columns[each] + FRAME for each in parts[-1])
        if parts[-1] and folded + taken + column + FRAME > room:
            parts.append([])
        parts[-1].append(place)
    widest = max(sum(columns[place] + FRAME for place in part) for part in parts)
    tables = [_table(report, part, min(names, max(folded, room - widest))) for part in parts]
    tables[0].title = f"Test {report.metric or 'results'}"
    if report.cells[["rank_ours", "rank_all"]].any(axis=None):
        tables[-1].caption = CAPTION
    return tables


def whole_width(report: Report) -> int:
    """Characters that one table needs with nothing folded."""
    names, columns = _widths(report)
    return EDGE + FRAME + names + sum(width + FRAME for width in columns)


def _widths(report: Report) -> tuple[int, list[int]]:
    """Of the rows' names, and of each column."""
    lines = [*report.ours, *report.published]
    columns = [
        _width([_head(report, place), *(_cell(report, cells[place]) for _, cells in lines)])
        for place in range(len(report.columns))
    ]
    names = [_noted(report, row.name, row.notes) for row, _ in lines]
    return _width([Text("model"), *names]), columns


def _width(texts: Sequence[Text]) -> int:
    return max(cell_len(line) for text in texts for line in text.plain.split("\n"))


def _table(report: Report, part: Sequence[int], names: int) -> Table:
    table = Table(title_justify="left", caption_justify="left")
    table.add_column("model", overflow="fold", width=names)
    for place in part:
        table.add_column(_head(report, place), justify="right", no_wrap=True)
    for lines, style in ((report.published, "dim"), (report.ours, "")):
        for row, cells in lines:
            if any(cells[place].state != "missing" for place in part):
                texts = [_cell(report, cells[place]) for place in part]
                table.add_row(_noted(report, row.name, row.notes), *texts, style=style)
        table.add_section()
    return table


def _head(report: Report, place: int) -> Text:
    column = report.columns[place]
    return _noted(report, report.heading(column), column.notes)


def _noted(report: Report, text: str, notes: Sequence[str]) -> Text:
    return Text(" ".join([text, *(report.marks[note] for note in notes)]))


def _cell(report: Report, cell: Any) -> Text:
    text = shown(cell)
    marks = ",".join(report.marks[note] for note in cell.notes)
    beside = f"{f' {text.beside}' if text.beside else ''}{text.star}{f' {marks}' if marks else ''}"
    return Text.assemble((text.main, STYLES.get(text.kind, "")), beside)
