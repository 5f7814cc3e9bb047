"""The report in Markdown, as GitHub shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from chela.records.cells import Cell
from chela.records.costs import Cost, costs
from chela.records.figures import duration, human, percent, size, spread
from chela.records.report import Report, Row

LEGEND = (
    "**Bold**: best, <ins>underlined</ins>: second best of our own rows. ★ best, ☆ second best of "
    "all rows, the published ones included. — : not run, or no number in the source."
)
SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>~&$@])")


def markdown(report: Report) -> str:
    """Both tables and all that stands beside them."""
    head = ["Model", *(escape(c.title) + _marks(c.marks) for c in report.columns)]
    body = [
        ["**Measured here**", *[""] * len(report.columns)],
        *(_row(row) for row in report.ours),
        ["**Published**", *[""] * len(report.columns)],
        *(_row(row) for row in report.published),
    ]
    parts = [
        "# Long Range Arena",
        _table(head, body),
        LEGEND,
        _list(report.remarks),
        "\n".join(f"<sup>{mark}</sup> {escape(text)}  " for mark, text in report.notes),
        "## Cost",
        _table(
            ["Model", "Task", "Parameters", "Tokens/s", "Peak memory", "Steps", "Time", "Hardware"],
            [_cost(line) for line in costs(report)],
        ),
        "Tokens/s in training, padding not counted. Time of one run, with validation and saving.",
    ]
    if report.unfinished:
        parts += ["## Runs without a number", _list(report.unfinished)]
    if report.unread:
        unread = [f"{each.file}: {each.reason}" for each in report.unread]
        parts += ["## Records that cannot be read", _list(unread)]
    sources = [f"{n}. {escape(source)}" for n, source in enumerate(report.sources, start=1)]
    parts += ["## Sources", "\n".join(sources)]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """``text`` so that Markdown shows it as it is, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _row(row: Row) -> list[str]:
    source = f" [{row.source}]" if row.source else ""
    return [escape(row.name + source), *map(_cell, row.cells)]


def _cell(cell: Cell) -> str:
    if cell.mean is None:
        return ("—" if cell.state == "missing" else f"*{cell.state}*") + _marks(cell.marks)
    mean = percent(cell.mean)
    if cell.rank_ours:
        mean = f"**{mean}**" if cell.rank_ours == 1 else f"<ins>{mean}</ins>"
    seeds = f" ({cell.seeds})" if cell.seeds else ""
    return f"{mean}{spread(cell.std)}{seeds}{['', '★', '☆'][cell.rank_all]}{_marks(cell.marks)}"


def _cost(line: Cost) -> list[str]:
    return [
        escape(line.model),
        escape(line.task),
        *(_or_dash(value, "{:,}") for value in (line.parameters,)),
        "—" if line.tokens_per_second is None else human(line.tokens_per_second),
        "—" if line.peak_memory is None else f"{size(line.peak_memory)} ({line.memory_of})",
        _or_dash(line.steps, "{:,}"),
        "—" if line.seconds is None else duration(line.seconds),
        escape(line.hardware) or "—",
    ]
