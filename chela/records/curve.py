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
    """Loss and accuracy over steps, the selected step, the test result and the majority baseline.

    Args:
        folder: where ``curve.png`` goes.
        title: what stands above it, normally the run's id.
        rows: the metrics over time, as in the record.
        test: the record's test section.
        best_step: the step whose weights were tested.

    Returns:
        The file.
    """
    figure = Figure(figsize=(9, 3.4), dpi=130, layout="constrained")
    figure.suptitle(title, fontsize=10)
    loss, accuracy = figure.subplots(1, 2)
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for stage, label in (("train", "training"), ("val", "validation")):
            _line(axes, rows, f"{stage}/{quantity}", label, COLORS[stage])
        axes.axvline(best_step, color="#d0d7de", linewidth=1, zorder=0)
        axes.set_xlabel("step")
        axes.set_ylabel("cross-entropy (nats)" if quantity == "loss" else "accuracy")
        axes.spines[["top", "right"]].set_visible(False)
    accuracy.axhline(
        test["majority_class_accuracy"], color="#cf222e", linestyle=":", label="majority class"
    )
    accuracy.errorbar(
        [best_step],
        [test["accuracy"]],
        yerr=[test["standard_error"]],
        fmt="o",
        color="#1a7f37",
        capsize=3,
        label=f"test {test['accuracy']:.3f} (n = {test['n']:,})",
    )
    accuracy.legend(frameon=False, fontsize=8)
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
