"""The picture of two measures against a length, a line per model; both axes are logarithmic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure


def draw_lines(
    points: Mapping[str, Sequence[tuple[float, float, float]]],
    labels: tuple[str, str, str],
    file: Path,
    title: str,
) -> None:
    """Write the picture.

    Args:
        points: of each model, the length and its two measures.
        labels: of the length and of the measures, with their units.
        file: a name that ends in .png or another format of matplotlib's.
        title: above both.
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for model, found in points.items():
        for number, axis in enumerate(axes, start=1):
            axis.plot([p[0] for p in found], [p[number] for p in found], marker="o", label=model)
    for axis, label in zip(axes, labels[1:], strict=True):
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set(xlabel=labels[0], ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(file, dpi=150)
