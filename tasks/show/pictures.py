"""A task's data as one picture: samples with their labels, lengths, classes."""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.storage.columns import stored_rows
from tasks.storage.meta import SplitMeta

if TYPE_CHECKING:
    from tasks.base import Task

COLORS = {"train": "#1f6feb", "val": "#bf8700", "test": "#1a7f37"}
COLUMNS = {"image": 6, "text": 3}  # images are small, texts need room
ROWS = 3
LINES, WIDTH = 20, 72  # of a text that fit its box
LENGTH_BINS = 60


def draw_sheet(task: Task, file: Path) -> None:
    """Write a picture of prepared data: samples of train, then two histograms of all splits.

    The samples are spread evenly over the training split, so that the same data give the same
    picture.
    """
    first = task.sample("train", 0)
    columns = COLUMNS["text" if isinstance(first, str) else "image"]
    figure = Figure(figsize=(15, 13 if isinstance(first, str) else 11), dpi=90)
    figure.suptitle(task.meta.describe(), fontsize=11, y=0.985)
    grid = figure.add_gridspec(
        2, 1, height_ratios=[4, 1], left=0.05, right=0.98, top=0.945, bottom=0.05, hspace=0.14
    )
    samples = grid[0].subgridspec(ROWS, columns, wspace=0.06, hspace=0.16)
    rows = np.linspace(0, len(task.train) - 1, ROWS * columns).astype(int)
    for place, row in enumerate(rows.tolist()):
        axes = figure.add_subplot(samples[place // columns, place % columns])
        axes.set_title(f"train {row}: class {task.train[row]['label']}", fontsize=9)
        _draw(axes, task.sample("train", row))
    histograms = grid[1].subgridspec(1, 2, wspace=0.12)
    _lengths(figure.add_subplot(histograms[0]), task)
    _classes(figure.add_subplot(histograms[1]), task)
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():  # signs that the font has not are drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(file, format="png")


def _draw(axes: Axes, sample: str | NDArray[np.uint8]) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    if not isinstance(sample, str):
        axes.imshow(sample, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        return
    lines = [part for line in sample.split("\n") for part in textwrap.wrap(line, WIDTH) or [""]]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], "..."]
    axes.text(
        0.01,
        0.98,
        "\n".join(lines).replace("$", r"\$"),
        va="top",
        family="monospace",
        fontsize=6.6,
        transform=axes.transAxes,
    )


def _lengths(axes: Axes, task: Task) -> None:
    splits = _splits(task)
    longest = max(split.max_length for split in splits.values())
    bins = np.linspace(0, longest + 1, LENGTH_BINS + 1)
    for name in splits:
        counts = np.zeros(LENGTH_BINS, dtype=np.int64)
        for rows in stored_rows(task.split(name)):
            counts += np.histogram(rows.lengths, bins)[0]
        axes.stairs(counts / counts.sum(), bins, color=COLORS[name], label=name, linewidth=1.4)
    axes.set_xlabel("stored length")
    axes.set_ylabel("share of samples")
    axes.legend(frameon=False)


def _classes(axes: Axes, task: Task) -> None:
    splits = _splits(task)
    width = 0.8 / len(splits)
    for place, (name, split) in enumerate(splits.items()):
        classes = np.arange(len(split.class_counts))
        shares = np.array(split.class_counts) / split.rows
        axes.bar(classes + (place + 0.5) * width - 0.4, shares, width, color=COLORS[name])
    axes.set_xlabel("class")
    axes.set_xticks(np.arange(max(len(split.class_counts) for split in splits.values())))
    axes.set_ylabel("share of samples")


def _splits(task: Task) -> dict[str, SplitMeta]:
    """Those with samples, a vocabulary not among them."""
    return {name: split for name, split in task.meta.splits.items() if name in COLORS}
