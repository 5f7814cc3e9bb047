"""Learning curves as inline SVG for the page; its colours are left to the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pandas as pd
from markupsafe import Markup, escape

from chela.records.collect import Run
from chela.records.format import human
from chela.records.record import is_number
from chela.report.frame import Report

# Small, so that the text is still readable when a telephone shrinks the chart to its width.
WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 26, 12, 44
MOST_POINTS = 160  # of a line: more cannot be told apart at this width, and would fill the page
SAME = 1e-6  # relative: values closer than this are one value to an axis
DOTTED = 12  # a line of at most so many points shows where they are
COLORS = 5  # that anyone can tell apart (page.css, .line0 to .line4); further lines are dashed
APART = 12  # units between the numbers at the ends of lines
BESIDE = 20  # units; ends that are farther apart do not hide each other's number
CROWD = 5  # lines; the bands of more cover each other, and are drawn for who points at one

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One series of a chart."""

    name: str
    color: int  # lines of the same kind share it
    points: Sequence[Point]  # in the order of x
    band: Sequence[tuple[float, float, float]] = ()  # x, least and greatest value, if not one line
    faint: bool = False  # for what is there to compare with
    number: int | None = None  # that stands at its end, and in the legend

    @property
    def style(self) -> str:
        """Its classes, for the stroke in the chart and the sample in the legend."""
        dashed = f" dash{min(3, self.color // COLORS)}" if self.color >= COLORS else ""
        return f"line line{self.color % COLORS}{dashed}{' faint' if self.faint else ''}"


def learning_curves(report: Report) -> Markup:
    """A figure per column: the mean of each row's seeds in validation, over the steps.

    Around a line lies the band between the worst and the best of its seeds. The lines are numbered
    in the order of their ends, as far as they got, and the legend is sorted by it.
    """
    figures = []
    rows = report.ours
    for place, column in enumerate(report.columns):
        lines = []
        for color, (row, cells) in enumerate(rows):
            runs = cells[place].runs
            finished = [run for run in runs if run.value is not None]
            curve = over_steps(finished or runs, f"val/{column.metric}", column.unit)
            if not curve.empty:
                band = zip(curve.index, curve.min(axis=1), curve.max(axis=1), strict=True)
                points = list(curve.mean(axis=1).items())
                several = len(curve.columns) > 1
                lines.append(Line(row.name, color, points, list(band) if several else ()))
        worse = -1 if column.direction == "max" else 1  # times a value: the best is the least
        lines.sort(key=lambda line: (worse * line.points[-1][1], line.name))
        numbered = [replace(line, number=number) for number, line in enumerate(lines, start=1)]
        label = f"validation {column.metric} ({column.unit})"
        about = f"Validation {column.metric} over steps on {column.title}"
        figures.append(_figure(column.title, numbered, label, about))
    return _charts(figures)


def run_curves(runs: Sequence[Run]) -> Markup:
    """Of what selects and of the loss: a colour per seed, training faint."""
    figures = []
    measures = [(run.metric, run.unit) for run in runs[:1]]
    for quantity, unit in dict([*measures, ("loss", "nats")]).items():
        lines = [
            Line(f"seed {run.seed}, {name}", color, points, faint=stage == "train")
            for color, run in enumerate(runs)
            for stage, name in (("train", "training"), ("val", "validation"))
            if (points := points_of(run, f"{stage}/{quantity}", unit))
        ]
        about = f"Training and validation {quantity} over steps, per seed"
        figures.append(_figure(quantity.capitalize(), lines, f"{quantity} ({unit})", about))
    return _charts(figures)


def points_of(run: Run, name: str, unit: str) -> list[Point]:
    """Step and value of a metric that is logged now and then; a row without it is left out.

    Args:
        run: its record may lack the metrics, as that of a run which has not ended.
        name: as in the record, ``"val/accuracy"``.
        unit: of the values; "%" of fractions.
    """
    factor = 100.0 if unit == "%" else 1.0
    return [
        (float(row["step"]), factor * row[name])
        for row in run.record.get("metrics") or []
        if is_number(row.get(name))
    ]


def over_steps(runs: Sequence[Run], name: str, unit: str) -> pd.DataFrame:
    """``points_of`` each run: a row per step in their order, a column per run that has any."""
    lines = [points_of(run, name, unit) for run in runs]
    found = {n: dict(points) for n, points in enumerate(lines) if points}
    return pd.DataFrame(found).sort_index()


def chart(lines: Sequence[Line], x_label: str, y_label: str, description: str) -> Markup:
    """The lines in one frame, or nothing if none has a point.

    Args:
        lines: points that are not finite are left out.
        x_label: under the horizontal axis, which begins at 0.
        y_label: beside the vertical axis.
        description: what a reader who does not see the picture is told.
    """
    kept = [
        (line, points)
        for line in lines
        if (points := thinned([p for p in line.points if all(map(math.isfinite, p))]))
    ]
    if not kept:
        return Markup()
    ends = [point for _, points in kept for point in points]
    ends += [(x, y) for line, _ in kept for x, *both in line.band for y in both]
    xs = ticks(0, max(x for x, _ in ends))
    ys = ticks(min(y for _, y in ends), max(y for _, y in ends))
    across = (WIDTH - LEFT - RIGHT) / (xs[-1] - xs[0])
    up = (HEIGHT - TOP - BOTTOM) / (ys[-1] - ys[0])

    def place(x: float, y: float) -> Point:
        return LEFT + (x - xs[0]) * across, HEIGHT - BOTTOM - (y - ys[0]) * up

    def path(points: Sequence[Point], between: str = "L") -> str:
        return between.join("{:.1f} {:.1f}".format(*place(*point)) for point in points)

    marks = []
    for value in ys:
        x, y = place(xs[0], value)
        marks.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        marks.append(f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in xs:
        x, y = place(value, ys[0])
        anchor = "end" if value == xs[-1] else "middle"
        marks.append(f'<text x="{x:.1f}" y="{y + 17}" text-anchor="{anchor}">{human(value)}</text>')
    heights = _heights([place(*points[-1]) for _, points in kept])
    for (line, points), height in zip(kept, heights, strict=True):
        marks.append(f'<g class="series k{line.number or 0}">')
        if line.band:
            band = thinned(line.band)
            outline = [(x, low) for x, low, _ in band] + [(x, high) for x, _, high in band[::-1]]
            marks.append(f'<path class="band {line.style}" d="M{path(outline)}Z"/>')
        marks.append(f'<path class="{line.style}" d="M{path(points)}"/>')
        if len(points) <= DOTTED:  # a stroke without length is a dot: its ends are round
            marks.append(f'<path class="{line.style} dot" d="M{path(points, "h0M")}h0"/>')
        if line.number is not None:
            end = place(*points[-1])[0] + 5
            shape = f'x="{end:.1f}" y="{height + 4:.1f}" class="end{line.color % COLORS}"'
            marks.append(f"<text {shape}>{line.number}</text>")
        marks.append("</g>")
    middle = (HEIGHT - BOTTOM + TOP) / 2
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(description)}</title>'
        f"{''.join(marks)}"
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text></svg>"
    )


def _heights(ends: Sequence[Point]) -> list[float]:
    """Of the numbers at the ends of lines: those beside each other keep apart, inside the chart."""
    order = sorted(range(len(ends)), key=lambda index: ends[index])
    groups: list[list[int]] = []
    for index in order:
        if not groups or ends[index][0] - ends[groups[-1][-1]][0] > BESIDE:
            groups.append([])
        groups[-1].append(index)
    found = [0.0] * len(ends)
    for group in groups:
        apart = min(APART, (HEIGHT - TOP - BOTTOM) / len(group))
        moved = spread([ends[index][1] for index in group], apart)
        inside = max(0.0, TOP - min(moved)) + min(0.0, HEIGHT - BOTTOM - max(moved))
        for index, height in zip(group, moved, strict=True):
            found[index] = height + inside
    return found


def spread(places: Sequence[float], apart: float) -> list[float]:
    """The places, in their order, moved so little that no two are closer than ``apart``."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    down, up = list(places), list(places)
    for before, after in pairwise(order):
        down[after] = max(down[after], down[before] + apart)
    for after, before in pairwise(order[::-1]):
        up[before] = min(up[before], up[after] - apart)
    return [(low + high) / 2 for low, high in zip(down, up, strict=True)]


def thinned(points: Sequence) -> list:
    """At most ``MOST_POINTS`` of them, evenly, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return list(points)
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(index * step)] for index in range(MOST_POINTS)]


def ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers (1, 2 or 5 times a power of ten apart) that enclose both ends.

    Ends that are (nearly) equal are moved apart first, by their own size.
    """
    most = max(abs(low), abs(high))
    if high - low <= SAME * max(most, SAME):
        around = most / 2 if most > SAME else 0.5
        low, high = low - around, high + around
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _figure(title: str, lines: Sequence[Line], label: str, description: str) -> str:
    if not (drawn := chart(lines, "step", label, description)):
        return ""
    items = "".join(
        f'<li class="k{line.number or 0}"><svg viewBox="0 0 26 10" aria-hidden="true">'
        f'<path class="{line.style}" d="M1 5H25"/></svg>'
        f"{'' if line.number is None else f'{line.number} '}{escape(line.name)}</li>"
        for line in lines
    )
    legend = f'<ul class="legend">{items}</ul>'
    crowded = ' class="crowded"' if len(lines) > CROWD else ""
    return f"<figure{crowded}><figcaption>{escape(title)}</figcaption>{drawn}{legend}</figure>"


def _charts(figures: Sequence[str]) -> Markup:
    text = "".join(figures)
    return Markup(f'<div class="charts">{text}</div>' if text else "")
