"""A line chart as inline SVG: few lines of markup, its colours left to the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Small, so that the text is still readable when a telephone shrinks the picture to its width.
WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 44
MOST_POINTS = 160  # of a line: more cannot be told apart at this width, and would fill the page
SAME = 1e-6  # relative: values closer than this are one value to an axis
DOTTED = 12  # a line of at most so many points shows where they are
COLORS = 6  # that the page's style defines, .line0 to .line5; further lines are dashed

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One series of a chart."""

    name: str
    color: int  # lines of the same kind share it
    points: Sequence[Point]  # in the order of x
    faint: bool = False  # for what is there to compare with


def chart(lines: Sequence[Line], x_label: str, y_label: str, description: str) -> str:
    """The lines in one frame, or nothing if none has a point.

    Args:
        lines: points that are not finite are left out.
        x_label: under the horizontal axis, which begins at 0.
        y_label: beside the vertical axis.
        description: what a reader who does not see the picture is told.
    """
    kept = [
        (line, thinned([p for p in line.points if all(map(math.isfinite, p))])) for line in lines
    ]
    ends = [point for _, points in kept for point in points]
    if not ends:
        return ""
    xs = ticks(0, max(x for x, _ in ends))
    ys = ticks(min(y for _, y in ends), max(y for _, y in ends))
    across = (WIDTH - LEFT - RIGHT) / (xs[-1] - xs[0])
    up = (HEIGHT - TOP - BOTTOM) / (ys[-1] - ys[0])

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + (x - xs[0]) * across, HEIGHT - BOTTOM - (y - ys[0]) * up

    marks = []
    for value in ys:
        x, y = place(xs[0], value)
        marks.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        marks.append(f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in xs:
        x, y = place(value, ys[0])
        anchor = "end" if value == xs[-1] else "middle"
        marks.append(f'<text x="{x:.1f}" y="{y + 17}" text-anchor="{anchor}">{value:g}</text>')
    for line, points in kept:
        if points:
            path = "L".join("{:.1f} {:.1f}".format(*place(*point)) for point in points)
            marks.append(f'<path class="{style(line)}" d="M{path}"/>')
            if len(points) <= DOTTED:  # a stroke without length is a dot: its ends are round
                dots = "".join("M{:.1f} {:.1f}h0".format(*place(*point)) for point in points)
                marks.append(f'<path class="{style(line)} dot" d="{dots}"/>')
    middle = (HEIGHT - BOTTOM + TOP) / 2
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(description)}</title>'
        f"{''.join(marks)}"
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text></svg>"
    )


def style(line: Line) -> str:
    """The classes of a line, for its stroke in the chart and its sample in a legend."""
    dashed = f" dash{min(3, line.color // COLORS)}" if line.color >= COLORS else ""
    return f"line line{line.color % COLORS}{dashed}{' faint' if line.faint else ''}"


def thinned(points: Sequence[Point]) -> list[Point]:
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
