"""The report as a picture: each task's values with their error bars."""

from __future__ import annotations

import io
import math
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chela.report.frame import Report
from tasks.screen import visible

OURS, THEIRS = "#1f6feb", "#9aa5b1"
PER_LINE = 3  # panels side by side: the width of a page
NARROWEST = 4.0  # %: the least that a panel of percentages spans
LETTERS = 60  # of a note, per panel of width
NAME = 54  # characters of a row's name, at most: more would leave no room for the panels


def picture(report: Report) -> bytes:
    """A panel per column that has a number of ours, as PNG.

    A point is a mean, its bar the standard deviation over the seeds; the grey strokes are the
    published values. Panels do not share their scale: the tasks do not share their difficulty.
    """
    rows = [row for row, _ in report.ours]
    known = report.cells[report.cells["value"].notna()]
    ours = set(known["key"][known["origin"] == "measured"])
    places = [place for place, column in enumerate(report.columns) if column.key in ours]
    across = max(1, min(PER_LINE, len(places)))
    down = max(1, math.ceil(len(places) / across))
    height = 0.6 + 0.22 * max(1, len(rows))
    margin = 0.6 + 0.075 * min(NAME, max((len(row.name) for row in rows), default=0))  # inches
    size = (margin + 3 * across, 0.5 + height * down + 0.12 * len(report.marks))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    for axes, place in zip(grid.flat, places, strict=False):
        _panel(axes, report, place)
    for axes in grid.flat[len(places) :]:
        axes.set_axis_off()
    if not places:
        figure.text(0.5, 0.5, "no finished run", ha="center")
    lines = [
        f"test {report.metric or 'results'}, mean and standard deviation over seeds; "
        "grey: published",
        *(f"[{mark}] {text}" for text, mark in report.marks.items()),
    ]
    wrapped = [part for line in lines for part in textwrap.wrap(line, LETTERS * across)]
    figure.supxlabel(_safe("\n".join(wrapped)), fontsize=7, x=0.02, ha="left")
    target = io.BytesIO()
    # without the library's version in it the same table is the same file
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def _panel(axes: Axes, report: Report, place: int) -> None:
    column, marks = report.columns[place], report.marks
    noted = "".join(f" [{marks[text]}]" for text in column.notes)
    axes.set_title(_plain(report.heading(column) + noted), fontsize=9)
    for _, cells in report.published:
        if cells[place].state in ("published", "computed"):
            axes.axvline(cells[place].value, color=THEIRS, linewidth=0.8, alpha=0.6, zorder=0)
    names = []
    for line, (row, cells) in enumerate(report.ours):
        cell = cells[place]
        names.append(_plain(row.name) + "".join(f" [{marks[text]}]" for text in row.notes))
        if not math.isnan(cell.value):
            bar = None if math.isnan(cell.std) else [cell.std]
            axes.errorbar([cell.value], [line], xerr=bar, fmt="o", color=OURS, capsize=3, ms=4)
            axes.annotate(
                ", ".join(marks[text] for text in cell.notes),
                (cell.value, line),
                xytext=(0, 4),
                textcoords="offset points",
                fontsize=6,
                ha="center",
            )
        elif cell.state != "missing":
            axes.text(0.02, line, cell.state, transform=axes.get_yaxis_transform(), fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=8)
    low, high = axes.get_xlim()
    # a tenth of a percent must not look like a world apart
    if column.unit == "%" and high - low < NARROWEST:
        middle = (low + high) / 2
        axes.set_xlim(middle - NARROWEST / 2, middle + NARROWEST / 2)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _plain(text: str) -> str:
    cut = text if len(text) <= NAME else text[: NAME - 1] + "…"
    return _safe(cut)


def _safe(text: str) -> str:
    return visible(text).replace("$", r"\$")  # a pair would be taken for a formula
