"""The table as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from chela.records.format import percent, spread
from chela.report.cells import Cell
from chela.report.report import Column, Report, Row

FRAME, EDGE = 3, 1  # characters that rich draws for each column, and once
NARROWEST = 20  # characters; names of rows are not folded to less


def terminal_tables(report: Report, width: int) -> list[Table]:
    """One table, or several with a part of the columns each where one is too wide.

    Published rows first, our own last: they stand right above the prompt. Names of rows are folded
    where that helps, numbers never. Each of several tables has the rows with something in it.

    Args:
        report: what to show.
        width: of the terminal, in characters.
    """
    names, columns = _widths(report)
    room = width - EDGE - FRAME
    in_one = NARROWEST + sum(each + FRAME for each in columns) <= room
    folded = min(names, NARROWEST if in_one else max(NARROWEST, width // 3))
    parts: list[list[int]] = [[]]
    for place in range(len(columns)):
        taken = sum(columns[each] + FRAME for each in [*parts[-1], place])
        if parts[-1] and folded + taken > room:
            parts.append([])
        parts[-1].append(place)
    widest = max(sum(columns[place] + FRAME for place in part) for part in parts)
    tables = [_table(report, part, min(names, max(folded, room - widest))) for part in parts]
    tables[0].title = "Test accuracy (%)"
    tables[-1].caption = "bold best, underlined second of our rows; ★ best, ☆ second of all"
    return tables


def whole_width(report: Report) -> int:
    """Characters that one table needs with nothing folded."""
    names, columns = _widths(report)
    return EDGE + FRAME + names + sum(width + FRAME for width in columns)


def _widths(report: Report) -> tuple[int, list[int]]:
    """Of the rows' names, and of each column."""
    rows = [*report.published, *report.ours]
    columns = [
        _width([_title(column), *(_cell(row.cells[place]) for row in rows)])
        for place, column in enumerate(report.columns)
    ]
    return _width([Text("model"), *map(_name, rows)]), columns


def _width(texts: Sequence[Text]) -> int:
    return max(cell_len(line) for text in texts for line in text.plain.split("\n"))


def _table(report: Report, part: Sequence[int], names: int) -> Table:
    table = Table(title_justify="left", caption_justify="left")
    table.add_column("model", overflow="fold", width=names)
    for place in part:
        table.add_column(_title(report.columns[place]), justify="right", no_wrap=True)
    for row in _rows(report.published, part):
        table.add_row(*row, style="dim")
    table.add_section()
    for row in _rows(report.ours, part):
        table.add_row(*row)
    return table


def _rows(rows: Sequence[Row], part: Sequence[int]) -> Iterator[list[Text]]:
    for row in rows:
        cells = [row.cells[place] for place in part]
        if any(cell.mean is not None or cell.state != "missing" for cell in cells):
            yield [_name(row), *map(_cell, cells)]


def _name(row: Row) -> Text:
    return Text(" ".join([row.name, *row.marks]))


def _title(column: Column) -> Text:
    return Text(" ".join([column.title, *column.marks]))


def _cell(cell: Cell) -> Text:
    marks = f" {','.join(cell.marks)}" if cell.marks else ""
    if cell.mean is None:
        return Text(("—" if cell.state == "missing" else cell.state) + marks)
    seeds = f" ({cell.seeds})" if cell.seeds else ""
    return Text.assemble(
        (percent(cell.mean), ["", "bold", "underline"][cell.rank_ours]),
        f"{spread(cell.std)}{seeds}{['', '★', '☆'][cell.rank_all]}{marks}",
    )
