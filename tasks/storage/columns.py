"""The columns of an open split as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from tasks.storage.rows import NOTHING, Rows


def stored_rows(dataset: Dataset) -> Iterator[Rows]:
    """All rows of an open split, a record batch at a time."""
    return map(rows_of, dataset.data.to_batches())


def rows_of(batch: pa.RecordBatch) -> Rows:
    """Arrow's columns as NumPy arrays, without a copy where possible."""
    values, asked = batch["values"], "targets" in batch.schema.names
    offsets = values.offsets.to_numpy().astype(np.int64)
    return Rows(
        values.flatten().to_numpy(),
        offsets - offsets[0],
        batch["label"].to_numpy(),
        batch["targets"].flatten().to_numpy() if asked else None,
    )


def targets_of(dataset: Dataset) -> int:
    """How many targets a split asks for: at each position that has one, else one of each row."""
    return sum(
        len(rows.labels) if rows.targets is None else int((rows.targets != NOTHING).sum())
        for rows in stored_rows(dataset)
    )


def lengths_of(dataset: Dataset) -> NDArray[np.int64]:
    """How many values each row of a split has (n,)."""
    return np.concatenate([rows.lengths for rows in stored_rows(dataset)])
