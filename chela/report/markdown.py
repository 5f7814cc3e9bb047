"""The report in Markdown, as GitHub shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from chela.records.format import percent, spread
from chela.report.cells import Cell
from chela.report.costs import HEAD, costs, texts
from chela.report.costs import LEGEND as COST_LEGEND
from chela.report.report import Report, Row

LEGEND = (
    "**Bold**: best, <ins>underlined</ins>: second best of our own rows. ★ best, ☆ second best of "
    "all rows, the published ones included. — : not run, or no number in the source."
)
SPECIAL = re.compile(r"([\\`*_\[\]#+|<>~&$@])")


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
            HEAD,
            [[escape(text) for text in texts(line)] for line in costs(report)],
        ),
        COST_LEGEND,
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
    return [escape(row.name + source) + _marks(row.marks), *map(_cell, row.cells)]


def _cell(cell: Cell) -> str:
    if cell.mean is None:
        return ("—" if cell.state == "missing" else f"*{cell.state}*") + _marks(cell.marks)
    mean = percent(cell.mean)
    if cell.rank_ours:
        mean = f"**{mean}**" if cell.rank_ours == 1 else f"<ins>{mean}</ins>"
    seeds = f" ({cell.seeds})" if cell.seeds else ""
    return f"{mean}{spread(cell.std)}{seeds}{['', '★', '☆'][cell.rank_all]}{_marks(cell.marks)}"


def _marks(marks: Iterable[str]) -> str:
    joined = ",".join(marks)
    return f"<sup>{joined}</sup>" if joined else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    # the first column is text, the others are read from the right
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(texts: Iterable[str]) -> str:
    return "\n".join(f"- {escape(text)}" for text in texts)
