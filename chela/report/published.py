"""Accuracies from the literature, each with the source it was printed in.

There is none of CHELA: the tables of its paper were not available to this project.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from chela.report.lra import LRA

FILE = "published_lra.csv"
# Which line is the same architecture as a model of ours: the newest where there are several. S4D's
# has no accuracies here.
SAME_MODEL = {
    "transformer": "Transformer (Mega rerun)",
    "linear_transformer": "Linear Transformer",
    "sgconv": "SGConv",
    "mega": "Mega",
    "mega_chunk": "Mega-chunk",
}


@dataclass(frozen=True)
class Published:
    """One model's line."""

    model: str
    kind: str  # its family, e.g. "state space"
    source: str
    accuracies: Mapping[str, float]  # % by task; a task without a number is left out


def published() -> list[Published]:
    """The lines of ``published_lra.csv`` beside this file, in its order."""
    text = files("chela.report").joinpath(FILE).read_text(encoding="utf-8")
    return [
        Published(
            line["model"],
            line["kind"],
            line["source"],
            {task: float(line[task]) for task in LRA if line[task]},
        )
        for line in csv.DictReader(text.splitlines())
    ]


def reference_lines() -> dict[str, Published]:
    """The published line of each of our models that has one."""
    lines = {line.model: line for line in published()}
    return {model: lines[name] for model, name in SAME_MODEL.items()}
