"""The training curve of one run as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chela.records.files import atomic_file

FILE = "curve.png"
COLORS = {"train": "#9aa5b1", "val": "#1f6feb"}


def draw_curve(
    folder: Path, title: str, rows: list[dict[str, Any]], test: dict[str, Any], best_step: int
) -> Path:
    """Each metric over steps, the selected step, the test result and the majority baseline.

    Args:
        folder: where ``curve.png`` goes.
        title: what stands above it, normally the run's id.
        rows: the metrics over time, as in the record.
        test: the record's test section.
        best_step: the step whose weights were tested.

    Returns:
        The file.
    """
    metrics = test["metrics"]
    figure = Figure(figsize=(4.5 * len(metrics), 3.4), dpi=130, layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = dict(zip(metrics, figure.subplots(1, len(metrics), squeeze=False)[0], strict=True))
    for quantity, axes in panels.items():
        for stage, label in (("train", "training"), ("val", "validation")):
            _line(axes, rows, f"{stage}/{quantity}", label, COLORS[stage])
        axes.axvline(best_step, color="#d0d7de", linewidth=1, zorder=0)
        axes.set_xlabel("step")
        unit = metrics[quantity]["unit"]
        axes.set_ylabel(quantity if unit == "fraction" else f"{quantity} ({unit})")
        axes.spines[["top", "right"]].set_visible(False)
    majority = test.get("majority_class_accuracy")
    if majority is not None:
        panels["accuracy"].axhline(majority, color="#cf222e", linestyle=":", label="majority class")
    found, axes = metrics[test["primary"]], panels[test["primary"]]
    axes.errorbar(
        [best_step],
        [found["value"]],
        yerr=[found["standard_error"]],
        fmt="o",
        color="#1a7f37",
        capsize=3,
        label=f"test {found['value']:.3f} (n = {test['n']:,})",
    )
    axes.legend(frameon=False, fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    with atomic_file(folder / FILE) as file:
        file.write(picture.getvalue())
    return folder / FILE


def _line(axes: Axes, rows: list[dict[str, Any]], name: str, label: str, color: str) -> None:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if points:
        marker = "." if len(points) < 40 else ""
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=color, marker=marker, linewidth=1.4, label=label)
