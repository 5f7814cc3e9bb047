"""One official file: a regular one, unpacked on the way, no larger than it may be, line by line.

Whatever goes wrong while it is read becomes a message that names it and says what helps.
"""

from __future__ import annotations

import bz2
import codecs
import errno
import gzip
import hashlib
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any, NamedTuple

from tasks.errors import DataError

CHUNK = 1 << 20  # bytes read at once: large enough that the calls do not count
LONGEST_LINE = 1 << 24  # bytes; official lines have some hundred thousand
# What reading a file, an archive or something compressed raises.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,  # a zip packed in a way that Python does not know
)
ERRORS = (OSError, MemoryError, *DAMAGE)
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Line(NamedTuple):
    """A line of a text."""

    number: int  # from 1
    content: bytes  # without its end
    has_end: bool  # false only for the last line of a file, which may be truncated

    @property
    def cut(self) -> str:
        """What to add to a message about this line."""
        return "" if self.has_end else "; the file ends here, it may be truncated"


@contextmanager
def opened(path: Path, limit: int) -> Iterator[IO[bytes]]:
    """The content of a regular file, decompressed if it begins like a gzip, bzip2 or xz file.

    Raises:
        DataError: it is missing, no regular file, damaged or too large; also while it is read.
    """
    with readable(path):
        check_regular(path)
        stream = decompressed(path)
    with stream:
        yield guarded(stream, path, path, limit)


def lines(stream: IO[bytes], place: Path | str) -> Iterator[Line]:
    """The lines of a text in UTF-8, without a byte-order mark and without blank lines at its end.

    Raises:
        DataError: it is UTF-16, or a line is longer than any text's.
    """
    blank: Line | None = None
    for number in count(1):
        content = stream.readline(LONGEST_LINE + 1)
        if not content:
            return
        if len(content) > LONGEST_LINE:
            raise DataError(
                f"{place}, line {number}: it has more than {LONGEST_LINE:,} bytes.\n"
                "  try: look at the file; its lines have lost their ends, or it is another file"
            )
        if number == 1 and content.startswith(UTF16):
            raise DataError(f"{place} is in UTF-16.\n  try: save it as UTF-8")
        if number == 1:
            content = content.removeprefix(codecs.BOM_UTF8)
        line = Line(number, content.rstrip(b"\r\n"), content.endswith(b"\n"))
        if not line.content.strip():
            blank = blank or line
            continue
        if blank is not None:  # it was not at the end: for the reader to say what is missing there
            yield blank
        blank = None
        yield line


def digest(path: Path) -> str:
    """The SHA-256 of a file as it lies there, in hex; it is streamed.

    Raises:
        DataError: it cannot be read.
    """
    found = hashlib.sha256()
    with readable(path):
        check_regular(path)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
    return found.hexdigest()


def check_md5(content: bytes, expected: str, place: Path | str) -> None:
    """Whether the content of a file, unpacked, is the official one.

    Raises:
        DataError: it is another.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(
            f"{place} is not the official file: the md5 of its content is {found}, not {expected} "
            f"({len(content):,} bytes).\n"
            "  try: fetch it again; for other data on purpose task.stand_in=<a name of theirs>, "
            "which then stands beside every number"
        )


def check_regular(path: Path) -> None:
    """Whether there is a regular file, or a link to one: a pipe or a device never ends.

    Raises:
        DataError: there is something else.
        OSError: there is nothing.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path} is no regular file.\n  try: put the file itself there")


def decompressed(path: Path) -> io.BufferedIOBase:
    """The file, decompressed on the way if it begins like a compressed one.

    Unlike tarfile's own decompression it tells when the file ends too early.
    """
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(path)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(path)
    if start == b"\xfd7zXZ\0":
        return lzma.LZMAFile(path)
    return path.open("rb")


def guarded(stream: IO[bytes] | io.BufferedIOBase, path: Path, name: Path | str, limit: int) -> Any:
    """A stream whose errors, which show where it is read, name the file they come from.

    Args:
        stream: the content.
        path: the file that it comes from.
        name: of the content, if it is a part of the file.
        limit: bytes that it may have; one more is an error.
    """
    return io.BufferedReader(_Guarded(stream, path, name, limit), CHUNK)


class _Guarded(io.RawIOBase):
    def __init__(
        self, stream: IO[bytes] | io.BufferedIOBase, path: Path, name: Path | str, limit: int
    ) -> None:
        self._stream, self._path = stream, path
        self._name, self._limit, self._left = name, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer) as view, readable(self._path):
            content = self._stream.read(len(view))
            view[: len(content)] = content
        self._left -= len(content)
        if self._left < 0:
            raise too_large(self._name, self._limit)
        return len(content)


def too_large(name: Path | str, limit: int) -> DataError:
    """The error of a file that unpacks to more than any of its kind has."""
    return DataError(
        f"{name} has more than {limit:,} bytes of content, which is more than is read of such a "
        "file.\n  try: look at what it is; the official file, or a part of one's own"
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, of whatever kind it is."""
    said = os.strerror(errno.ENOMEM) in str(error)  # Arrow's errors have no number
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and said)


def memory_is_short(what: str) -> DataError:
    """The error for it; nothing is wrong with the data."""
    return DataError(
        f"memory is short: {what}.\n"
        "  try: end other programs, or lift the limit that is set for this one (ulimit -v, the "
        "batch system's); the data are not damaged"
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what can go wrong while ``path`` is read into a message with a remedy.

    Raises:
        DataError: instead of an error of the operating system, of tar or of a decompressor.
    """
    try:
        yield
    except DAMAGE as error:
        raise _damaged(path, error) from error
    except (OSError, MemoryError) as error:
        if out_of_memory(error):
            raise memory_is_short(f"{path} cannot be read") from error
        if not isinstance(error, OSError) or error.errno is None:  # of a decompressor
            raise _damaged(path, error) from error
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}.\n  try: look at its permissions, "
            "or copy it again"
        ) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is truncated or not what its name says: {error}.\n"
        f"  try: compare its size ({path.stat().st_size:,} bytes) with the source's, and fetch "
        "it again"
    )
