"""Small corpora, prepared, for the tests."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from tasks.base import Task
from tests.tasks.samples import ready


def prepared(task: type[Task], folder: Path, **keys: Any) -> Any:
    """A task by these keys, set up."""
    return ready(task(task.Config(**keys), folder))


def text_of(task: Any, split: str) -> str:
    """What its samples of a split say, one behind the other."""
    rows = task.split(split)["values"]
    return "".join(task.text_of(row) for row in rows)


def zipped(file: Path, members: dict[str, bytes]) -> Path:
    """A zip with these files."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file
