"""One cell of the table: the runs of one configuration on one task, summed up."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from chela.records.collect import Run


@dataclass(frozen=True)
class Cell:
    """A number with its spread, or the reason why there is none."""

    mean: float | None = None  # % over the finished seeds
    std: float | None = None  # %, of the sample (n - 1); one seed has none
    seeds: int = 0  # that are in the mean; 0 for a published value or an average
    state: str = "missing"  # why there is no number: missing, running, interrupted, failed
    runs: tuple[Run, ...] = ()  # by seed, those without a number too
    marks: tuple[str, ...] = ()  # of the notes that apply
    rank_ours: int = 0  # 1 the best, 2 the second best of our own rows, 0 neither
    rank_all: int = 0  # the same of all rows, the published ones included


def summary(runs: Sequence[Run]) -> Cell:
    """The cell of runs that differ in their seeds alone.

    The mean is over the finished runs. Without any, the state is the one that asks most for a look:
    failed before interrupted before running.
    """
    ordered = tuple(sorted(runs, key=lambda run: run.seed))
    values = [100 * run.accuracy for run in ordered if run.accuracy is not None]
    if not values:
        states = [run.status for run in ordered]
        order = ("failed", "interrupted", "running")
        state = next((each for each in order if each in states), "missing")
        return Cell(state=state, runs=ordered)
    return Cell(
        mean=math.fsum(values) / len(values),
        std=statistics.stdev(values) if len(values) > 1 else None,
        seeds=len(values),
        runs=ordered,
    )


def without_number(cell: Cell) -> list[str]:
    """``["seed 2 failed", ...]`` for the runs of a cell that are not in its mean."""
    return [f"seed {run.seed} {run.status}" for run in cell.runs if run.accuracy is None]


def unlike(cell: Cell) -> list[str]:
    """In what the finished runs differ besides the seed: code, precision or hardware."""
    aspects = {
        "the code's commit": "git.commit",
        "the precision": "precision",
        "the GPU": "hardware.gpu",
        "the device": "hardware.device",
    }
    finished = [run for run in cell.runs if run.accuracy is not None]
    return [name for name, path in aspects.items() if len({run.text(path) for run in finished}) > 1]
