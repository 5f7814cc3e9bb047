"""Where a run's folder is and what its record says."""

from __future__ import annotations

from pathlib import Path

from chela.config.schema import parse
from chela.records.record import read_record
from chela.training.folder import RunFolder


def folder_of(config) -> Path:
    return RunFolder(parse(config)).path


def record_of(config) -> dict:
    record = read_record(folder_of(config))
    assert record is not None
    return record
