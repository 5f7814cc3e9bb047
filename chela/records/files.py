"""Files that are whole or absent."""

from __future__ import annotations

import glob
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from chela.disk import disk_error

DAY = 86_400.0  # seconds


@contextmanager
def atomic_file(target: Path) -> Iterator[BinaryIO]:
    """A file to write into that takes the place of ``target`` once it is complete.

    It is written beside the target, flushed to the disk and renamed: a kill or an error at any
    moment leaves the old file or the new one, never a part. Of several that write it at once, on
    whatever machines, each leaves a whole one. An error of the disk names the target. What killed
    processes had begun to write in its place is removed a day later, when none of them can live.

    Args:
        target: the file; missing folders above it are made.
    """
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(target.parent, target.name, DAY)
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException as error:
        with suppress(OSError):  # read-only by now
            unfinished.unlink(missing_ok=True)
        if (disk := disk_error(error)) and disk.filename in (None, str(unfinished)):
            disk.filename = str(target)
        raise


def remove_unfinished(folder: Path, name: str | None = None, age: float | None = None) -> None:
    """Remove what killed processes were writing into a folder.

    Args:
        folder: where the files are.
        name: of the one that they wrote; None: any.
        age: seconds since they last did; None: no other process writes there now.
    """
    began = "" if name is None else f".{glob.escape(name)}"
    for unfinished in folder.glob(f"{began}.*.unfinished"):
        with suppress(OSError):  # read-only, or removed meanwhile
            if age is None or time.time() - unfinished.stat().st_mtime > age:
                unfinished.unlink()


def write_text(target: Path, text: str) -> None:
    """``text`` as the whole content of ``target``, in UTF-8, atomically."""
    with atomic_file(target) as file:
        file.write(text.encode())


def as_typed(file: Path) -> Path:
    """Relative to the working directory where it is inside it: what a user can paste."""
    here = Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file
