"""A dataset of nine rows, and a recipe that prepares it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from tasks.base import Task
from tasks.storage.columns import stored_rows
from tasks.storage.meta import Origin, SplitCounts, fingerprint
from tasks.storage.rows import Rows, offsets_of
from tasks.storage.store import Recipe, load

T = TypeVar("T", bound=Task)


def block(*samples: tuple[list[int], int], dtype: str = "uint8") -> Rows:
    values = np.array([value for sample, _ in samples for value in sample], dtype=dtype)
    lengths = np.array([len(sample) for sample, _ in samples], dtype=np.int64)
    return Rows(values, offsets_of(lengths), np.array([label for _, label in samples], np.int64))


SAMPLES = {
    "train": [([1, 2, 3], 0), ([], 2), ([4], 2), ([5, 6], 1)],
    "val": [([7, 7], 1)],
    "test": [([9] * 300, 0), ([8], 1), ([8, 8], 0), ([8], 0)],
}


def rows_of_samples() -> Iterator[tuple[str, Rows]]:
    for split, samples in SAMPLES.items():
        for start in range(0, len(samples), 3):
            yield split, block(*samples[start : start + 3])


def recipe(rows=rows_of_samples, dtype: str = "uint8") -> Recipe:
    return Recipe(Origin("toy", 1, "made", {"size": 9}), dtype, rows)


def ready(task: T) -> T:
    """The task, its data prepared and open."""
    task.prepare_data()
    task.setup()
    return task


def fingerprint_of(folder: Path) -> str:
    """What the stored rows themselves have, whatever ``meta.json`` says."""
    prepared = load(folder)
    counts = {name: SplitCounts() for name in prepared.splits}
    for name, dataset in prepared.splits.items():
        for rows in stored_rows(dataset):
            counts[name].add(rows)
    return fingerprint(prepared.meta.version, counts)
