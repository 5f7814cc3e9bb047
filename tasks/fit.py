"""Whether stored rows are what their task's ``spec`` says; of others a model fails late, or not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from tasks.loader import Encoding
from tasks.spec import TaskSpec
from tasks.storage.columns import stored_rows
from tasks.storage.rows import NOTHING, Rows


def misfit(
    dataset: Dataset, spec: TaskSpec, encoding: Encoding, samples_are_rows: bool
) -> tuple[int, str] | None:
    """The first row of an open split that is not as ``spec`` says, and what it has; None: all are.

    Args:
        dataset: the split.
        spec: of its task.
        encoding: likewise.
        samples_are_rows: the length of a row is that of a sample.
    """
    before = 0
    for rows in stored_rows(dataset):
        for row, what in _misfits(rows, spec, encoding, samples_are_rows):
            return before + row, what
        before += len(rows.labels)
    return None


def _misfits(
    rows: Rows, spec: TaskSpec, encoding: Encoding, samples_are_rows: bool
) -> Iterator[tuple[int, str]]:
    """Rows that do not fit, of each kind of misfit the first."""
    lengths, most = rows.lengths // encoding.channels, spec.max_length * spec.documents
    if samples_are_rows and lengths.max(initial=0) > most:
        row = int(np.argmax(lengths > most))
        yield row, f"the length {lengths[row]}, but max_length={spec.max_length}"
    if np.issubdtype(rows.values.dtype, np.floating):
        place = _not_finite(rows.values)
        if place is not None:
            yield _row_of(rows, place), f"the value {rows.values[place]}"
    elif spec.vocab_size is not None and encoding.values is Tensor.long:
        place = _outside(rows.values, spec.vocab_size)
        if place is not None:
            why = _range("symbol", rows.values[place], "vocab_size", spec.vocab_size)
            yield _row_of(rows, place), why
    if rows.targets is not None:
        place = _outside(np.where(rows.targets == NOTHING, 0, rows.targets), spec.num_classes)
        if place is not None:
            why = _range("target", rows.targets[place], "num_classes", spec.num_classes)
            yield _row_of(rows, place), why
    elif spec.objective == "classification":
        place = _outside(rows.labels, spec.num_classes)
        if place is not None:
            yield place, _range("label", rows.labels[place], "num_classes", spec.num_classes)


def _range(what: str, found: int, key: str, count: int) -> str:
    return f"the {what} {found}, but {key}={count} allows 0 to {count - 1}"


def _outside(numbers: NDArray[np.integer], count: int) -> int | None:
    """Where the first number is that is not among 0 .. count - 1."""
    is_low = numbers.dtype.kind != "u" and numbers.min(initial=0) < 0
    if not is_low and numbers.max(initial=0) < count:
        return None
    return int(np.argmax((numbers < 0) | (numbers >= count)))


def _not_finite(numbers: NDArray[np.floating]) -> int | None:
    if np.isfinite([numbers.min(initial=0), numbers.max(initial=0)]).all():  # NaN is either
        return None
    return int(np.argmax(~np.isfinite(numbers)))


def _row_of(rows: Rows, place: int) -> int:
    """The row that a value is in."""
    return int(np.searchsorted(rows.offsets, place, side="right")) - 1
