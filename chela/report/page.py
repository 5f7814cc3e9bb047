"""The report as one HTML page that needs nothing else: no script, no font, no picture from outside.

A number in the table is a link to its runs further down; a browser opens what is folded there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from chela.records.format import percent, spread
from chela.report.cells import Cell
from chela.report.costs import HEAD, costs, texts
from chela.report.costs import LEGEND as COST_LEGEND
from chela.report.curves import learning_curves, run_curves
from chela.report.details import configuration, facts
from chela.report.report import Column, Report, Row

LEGEND = (
    "<strong>Bold</strong>: best, <u>underlined</u>: second best of our own rows. ★ best, ☆ second "
    "best of all rows, the published ones included. — : not run, or no number in the source. "
    "A number of ours leads to its runs."
)
# Even a mistake in the escaping could not run a script or fetch anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(report: Report) -> str:
    """The whole page, UTF-8."""
    style = files("chela.report").joinpath("page.css").read_text(encoding="utf-8")
    charts = learning_curves(report)
    parts = [
        _accuracy(report),
        _notes(report),
        _section("curves", "Learning curves", charts) if charts else "",
        _section("cost", "Cost", _costs(report)),
        _section("runs", "Runs", _runs(report)),
        _troubles(report),
        _section("sources", "Sources", _list(report.sources, "ol")),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Long Range Arena: report</title><style>\n{style}</style></head>\n"
        f"<body><main><h1>Long Range Arena</h1>{_lede(report)}\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def _lede(report: Report) -> str:
    runs = [run for _, _, cell in report.cells() for run in cell.runs]
    finished = sum(run.accuracy is not None for run in runs)
    models = len({run.model for run in runs})
    open_runs = f'; <a href="#unfinished">{len(runs) - finished} without a number</a>'
    return (
        f'<p class="quiet">{_count(finished, "finished run")} of {_count(models, "model")}'
        f"{open_runs if finished < len(runs) else ''}.</p>"
    )


def _accuracy(report: Report) -> str:
    head = "".join(
        f'<th scope="col">{escape(column.title)}{_marks(column.marks)}</th>'
        for column in report.columns
    )
    groups = [
        _group("Measured here", report.columns, report.ours, linked=True),
        _group("Published", report.columns, report.published, linked=False),
    ]
    return (
        '<section aria-labelledby="accuracy"><h2 id="accuracy">Test accuracy (%)</h2>'
        '<div class="scroll" role="region" aria-labelledby="accuracy" tabindex="0">'
        f'<table class="sticky"><thead><tr><th scope="col">Model</th>{head}</tr></thead>'
        f"{''.join(groups)}</table></div></section>"
    )


def _group(title: str, columns: Sequence[Column], rows: Sequence[Row], linked: bool) -> str:
    lines = [
        f'<tr><th scope="rowgroup" colspan="{len(columns) + 1}">{title}</th></tr>',
        *(
            f'<tr><th scope="row">{escape(row.name)}{_marks(row.marks)}'
            + (f' <a href="#sources">[{row.source}]</a>' if row.source else "")
            + "</th>"
            + "".join(
                f"<td>{_cell(cell, _anchor(number, place) if linked and cell.runs else None)}</td>"
                for place, cell in enumerate(row.cells)
            )
            + "</tr>"
            for number, row in enumerate(rows)
        ),
    ]
    return f"<tbody>{''.join(lines)}</tbody>"


def _cell(cell: Cell, anchor: str | None) -> str:
    if cell.mean is None:
        tone = "bad" if cell.state == "failed" else "warn"
        text = "—" if cell.state == "missing" else f'<span class="{tone}">{cell.state}</span>'
    else:
        text = percent(cell.mean)
        if cell.rank_ours:
            text = f"<strong>{text}</strong>" if cell.rank_ours == 1 else f"<u>{text}</u>"
    if anchor:
        text = f'<a href="#{anchor}">{text}</a>'
    star = ["", '<span title="best of all">★</span>', '<span title="second best of all">☆</span>']
    beside = star[cell.rank_all] + _marks(cell.marks)
    below = f"{spread(cell.std)} ({cell.seeds})" if cell.seeds else ""
    return (
        text
        + (f'<span class="beside">{beside}</span>' if beside else "")
        + (f"<small>{below.strip()}</small>" if below else "")
    )


def _notes(report: Report) -> str:
    remarks = [LEGEND, *map(escape, report.remarks)]
    notes = [f'<sup id="note-{m}">{m}</sup> {escape(text)}.' for m, text in report.notes]
    return f'<ul class="notes">{"".join(f"<li>{each}</li>" for each in [*remarks, *notes])}</ul>'


def _costs(report: Report) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in HEAD)
    lines = []
    for line in costs(report):
        model, *rest = texts(line)
        cells = "".join(
            f'<td class="text">{escape(text)}</td>'
            if place in (0, len(rest) - 1)
            else f"<td>{escape(text)}</td>"
            for place, text in enumerate(rest)
        )
        lines.append(f'<tr><th scope="row">{escape(model)}</th>{cells}</tr>')
    return (
        '<div class="scroll" role="region" aria-label="Cost" tabindex="0"><table class="sticky">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="notes">{COST_LEGEND}</p>'
    )


def _runs(report: Report) -> str:
    folded = []
    for number, row in enumerate(report.ours):
        for place, (column, cell) in enumerate(zip(report.columns, row.cells, strict=True)):
            if cell.runs:
                folded.append(_details(_anchor(number, place), row, column, cell))
    return "\n".join(folded)


def _details(anchor: str, row: Row, column: Column, cell: Cell) -> str:
    runs = []
    for run in cell.runs:
        keys = _pairs(configuration(run), "keys")
        runs.append(
            f'<div class="run"><h3>Seed {run.seed}</h3>{_pairs(facts(run))}'
            f"<details><summary>Configuration {escape(run.identity)}</summary>"
            f'<div class="inside">{keys}</div></details></div>'
        )
    # the target is inside, not the box itself: going to it is what makes a browser open the box
    return (
        f"<details><summary><strong>{escape(row.name)}</strong> on {escape(column.title)}: "
        f"{_cell(cell, None)}</summary>"
        f'<div class="inside" id="{anchor}">{run_curves(cell.runs)}{"".join(runs)}'
        '<p><a href="#accuracy">Back to the table</a></p></div></details>'
    )


def _troubles(report: Report) -> str:
    unread = [f"{each.file}: {each.reason}" for each in report.unread]
    return "\n".join(
        _section(anchor, title, _list(texts))
        for anchor, title, texts in (
            ("unfinished", "Runs without a number", report.unfinished),
            ("unread", "Records that cannot be read", unread),
        )
        if texts
    )


def _section(anchor: str, title: str, content: str) -> str:
    return f'<section><h2 id="{anchor}">{title}</h2>{content}</section>'


def _list(items: Iterable[str], tag: str = "ul") -> str:
    return f'<{tag} class="notes">{"".join(f"<li>{escape(each)}</li>" for each in items)}</{tag}>'


def _pairs(pairs: Iterable[tuple[str, str]], style: str = "") -> str:
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f'<dl class="{style}">{lines}</dl>'


def _marks(marks: Sequence[str]) -> str:
    links = ",".join(f'<a href="#note-{mark}">{mark}</a>' for mark in marks)
    return f"<sup>{links}</sup>" if links else ""


def _anchor(row: int, place: int) -> str:
    return f"runs-{row}-{place}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
