"""The picture of two measures against a length, a line per model; both axes are logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure


def draw_lines(
    points: Sequence[tuple[str, float, float, float]],
    labels: tuple[str, str, str],
    file: Path,
    title: str,
) -> None:
    """Write the picture.

    Args:
        points: a model, a length and its two measures, lengths in their order.
        labels: of the length and of the measures, with their units.
        file: a name that ends in .png or another format of matplotlib's.
        title: above both.
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for model in dict.fromkeys(point[0] for point in points):
        lengths, *measures = zip(*(each[1:] for each in points if each[0] == model), strict=True)
        for axis, values in zip(axes, measures, strict=True):
            axis.plot(lengths, values, marker="o", label=model)
    for axis, label in zip(axes, labels[1:], strict=True):
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set(xlabel=labels[0], ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(file, dpi=150)
