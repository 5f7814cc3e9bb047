"""Where files are to be written: a folder as it was given, and a disk that does not take them."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from chela.errors import ConfigError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}
WITHOUT_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
NO_PLACE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EIO,
    errno.ESTALE,
}


def given_folder(place: str | Path, said: str = "") -> Path:
    """A folder by the path that a user gave; an empty one would silently be the current folder.

    Args:
        place: the path.
        said: what stood before it, ``output_dir=``.

    Raises:
        ConfigError: it is empty.
    """
    if place == "":
        raise ConfigError(f"{said}'' names no folder.\n  try: {said}. for the current one")
    return Path(place)


def disk_error(error: BaseException) -> OSError | None:
    """The error of a disk that this is, or was raised from; None if it is of another kind.

    Libraries turn a full disk into errors of their own, with the disk's in the context.
    """
    if isinstance(error, OSError):
        # a bare name is a program that is missing, and none at all a closed output
        name = os.fsdecode(error.filename or "")
        of_a_file = os.sep in name or (name != "" and error.errno != errno.ENOENT)
        known = FULL | (CLOSED | WITHOUT_LOCKS | NO_PLACE if of_a_file else set())
        return error if error.errno in known else None
    seen: list[BaseException] = [error]
    while (below := seen[-1].__cause__ or seen[-1].__context__) and below not in seen:
        if isinstance(below, OSError) and below.errno in FULL | {errno.EROFS}:
            return below
        seen.append(below)
    return None


def explain_disk(error: OSError) -> str:
    """Which file could not be written, how much room there is, and what to do."""
    if error.errno in FULL:
        remedy = "make room there"
    elif error.errno in CLOSED:
        remedy = "make it writable"
    elif error.errno in WITHOUT_LOCKS:
        remedy = "a folder on a disk that has locks, not this one"
    else:
        remedy = "see what is there"
    place = str(error.filename or "a file")
    return (
        f"{place}: {error.strerror}{_room(error)}\n"
        f"  try: {remedy}, or another output_dir or data_dir; then repeat the command"
    )


def _room(error: OSError) -> str:
    """What is left on the disk of the file."""
    if error.filename is None:
        return ""
    folder = Path(os.fsdecode(error.filename)).absolute().parent
    try:
        while not folder.is_dir():
            folder = folder.parent
        usage, entries = shutil.disk_usage(folder), os.statvfs(folder)
    except OSError:
        return ""
    inodes = ", and no inodes" if entries.f_files and not entries.f_favail else ""
    return f" ({_size(usage.free)} free of {_size(usage.total)} in {folder}{inodes})"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
