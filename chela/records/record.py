"""``record.json``: all that is needed to believe a number, in one file per run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from chela.records.files import write_text

VERSION = 1  # of the record's form; raised when a key changes its meaning
FILE = "record.json"


def write_record(folder: Path, content: dict[str, Any]) -> Path:
    """Write the record of a run, replacing the one before atomically.

    Args:
        folder: the run's folder.
        content: JSON values; numbers that are not finite become null, as JSON knows none.

    Returns:
        The file.
    """
    file = folder / FILE
    text = json.dumps(_finite({"record_version": VERSION, **content}), indent=1, allow_nan=False)
    write_text(file, text + "\n")
    return file


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in ``folder``, or None if there is none.

    Raises:
        ValueError: the file is not a record.
    """
    file = folder / FILE
    if not file.exists():
        return None
    content = json.loads(file.read_text())
    if not isinstance(content, dict) or "status" not in content:
        raise ValueError(f"{file} is not a run's record")
    return content


def test_result(accuracy: float, loss: float, n: int, majority: float) -> dict[str, Any]:
    """The test section: the accuracy with its binomial standard error and the baseline beside it.

    Args:
        accuracy: fraction of the test split that was right.
        loss: mean cross-entropy, in nats.
        n: size of the test split.
        majority: accuracy of always answering the training split's most frequent class.
    """
    error = math.sqrt(accuracy * (1 - accuracy) / n)
    return {
        "n": n,
        "accuracy": accuracy,
        "standard_error": error,
        "loss": loss,
        "majority_class_accuracy": majority,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
