"""The Long Range Arena: its six tasks, which data are theirs, and the accuracies in print.

There is none of CHELA: the tables of its paper were not available to this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import pandas as pd

from chela.records.collect import Run

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
class Benchmark:
    """What the published numbers of a task were measured on.

    The sizes are those of Tay et al. 2021 as used since (S4, Mega): training and validation rows
    together, for they are split in more than one way.
    """

    title: str
    fit_rows: int
    test_rows: int
    longest: int = 0  # no data whose longest test sequence is shorter are the task's


LRA = {
    # strictly between 500 and 2,000 tokens; 2,000 trees reach 1,900 with certainty
    "listops": Benchmark("ListOps", 98_000, 2_000, longest=1_900),
    "text": Benchmark("Text", 25_000, 25_000),
    "retrieval": Benchmark("Retrieval", 165_176, 17_437),
    "image": Benchmark("Image", 50_000, 10_000),
    "pathfinder": Benchmark("Pathfinder", 180_000, 20_000),
    "pathx": Benchmark("Path-X", 180_000, 20_000, longest=16_384),
}


def departure(run: Run) -> str | None:
    """Why a run's data cannot stand beside published numbers, or None if they can.

    Stand-ins, and data of other sizes than the benchmark's (fewer samples, shorter trees), are
    other tasks, however they are named.
    """
    benchmark = LRA[run.task]
    if run.stand_in:
        return f"stand-in for the data of {benchmark.title}"
    fit = sum(run.rows.get(split, 0) for split in ("train", "val"))
    test = run.rows.get("test", 0)
    if (fit, test) != (benchmark.fit_rows, benchmark.test_rows):
        return (
            f"not the data of the benchmark: {fit:,} samples to train and validate, {test:,} to "
            f"test ({benchmark.fit_rows:,} and {benchmark.test_rows:,} there)"
        )
    if run.longest < benchmark.longest:
        return (
            f"not the data of the benchmark: no sequence is longer than {run.longest:,} "
            f"(at least {benchmark.longest:,} there)"
        )
    return None


def published() -> pd.DataFrame:
    """A line per model: ``model``, its accuracy in % by task (NaN: none), ``kind``, ``source``."""
    with files("chela.report").joinpath(FILE).open(encoding="utf-8") as file:
        return pd.read_csv(file)


def reference(task: str) -> dict[str, float]:
    """The published accuracy in % on a task of each of our models that has a line."""
    values = published().set_index("model")[task]
    return {model: float(values[name]) for model, name in SAME_MODEL.items()}
