"""Learning curves for the page: all models on a task, and the runs of one cell."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from chela.records.collect import Run
from chela.records.record import is_number
from chela.report.report import Report
from chela.report.svg import Line, Point, chart, style


def learning_curves(report: Report) -> str:
    """A figure per column: validation accuracy over the steps, a line per run, a colour per row."""
    figures = []
    for place, column in enumerate(report.columns):
        lines = [
            Line(row.name, color, points)
            for color, row in enumerate(report.ours)
            for run in row.cells[place].runs
            if (points := points_of(run, "val/accuracy"))
        ]
        if lines:
            drawn = chart(
                lines,
                "step",
                "validation accuracy (%)",
                f"Validation accuracy over steps on {column.title}",
            )
            figures.append(_figure(column.title, drawn, _legend(lines)))
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def run_curves(runs: Sequence[Run]) -> str:
    """Two figures, accuracy and loss: a colour per seed, validation in full, training faint."""
    figures = []
    for quantity, factor, unit in (("accuracy", 100.0, "%"), ("loss", 1.0, "nats")):
        lines = [
            Line(f"seed {run.seed}, {name}", color, points, faint=stage == "train")
            for color, run in enumerate(runs)
            for stage, name in (("train", "training"), ("val", "validation"))
            if (points := points_of(run, f"{stage}/{quantity}", factor))
        ]
        if lines:
            description = f"Training and validation {quantity} over steps, per seed"
            drawn = chart(lines, "step", f"{quantity} ({unit})", description)
            figures.append(_figure(quantity.capitalize(), drawn, _legend(lines)))
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def points_of(run: Run, name: str, factor: float = 100.0) -> list[Point]:
    """Step and value of a metric that is logged now and then; a row without it is left out.

    Args:
        run: its record may lack the metrics, as that of a run which has not ended.
        name: as in the record, ``"val/accuracy"``.
        factor: 100 makes a fraction a percentage.
    """
    return [
        (float(row["step"]), factor * row[name])
        for row in run.record.get("metrics") or []
        if is_number(row.get(name))
    ]


def _figure(title: str, drawn: str, legend: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}{legend}</figure>"


def _legend(lines: Sequence[Line]) -> str:
    samples = {line.name: style(line) for line in lines}
    items = "".join(
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true"><path class="{classes}" d="M1 5H25"/>'
        f"</svg>{escape(name)}</li>"
        for name, classes in samples.items()
    )
    return f'<ul class="legend">{items}</ul>'
