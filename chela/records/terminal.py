"""The table as a terminal shows it."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from chela.records.cells import Cell
from chela.records.figures import percent, spread
from chela.records.report import Report, Row


def terminal_table(report: Report) -> Table:
    """Published rows first, our own last: they stand right above the prompt."""
    table = Table(title="Test accuracy (%)", title_justify="left", caption_justify="left")
    table.caption = "bold best, underlined second of our rows; ★ best, ☆ second of all"
    table.add_column("model", overflow="fold")
    for column in report.columns:
        table.add_column(Text(" ".join([column.title, *column.marks])), justify="right")
    for row in report.published:
        table.add_row(*_row(row), style="dim")
    table.add_section()
    for row in report.ours:
        table.add_row(*_row(row))
    return table


def _row(row: Row) -> list[Text]:
    return [Text(" ".join([row.name, *row.marks])), *map(_cell, row.cells)]


def _cell(cell: Cell) -> Text:
    marks = f" {','.join(cell.marks)}" if cell.marks else ""
    if cell.mean is None:
        return Text(("—" if cell.state == "missing" else cell.state) + marks)
    seeds = f" ({cell.seeds})" if cell.seeds else ""
    return Text.assemble(
        (percent(cell.mean), ["", "bold", "underline"][cell.rank_ours]),
        f"{spread(cell.std)}{seeds}{['', '★', '☆'][cell.rank_all]}{marks}",
    )
