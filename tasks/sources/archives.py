"""Official files where they lie: unpacked in a folder, or still inside their tar archive.

Both are read the same way, one file after the other, and an archive is never unpacked: of 8 GB of
the Long Range Arena only the members that a task needs pass through memory, one at a time.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tasks.errors import DataError

CHUNK = 1 << 20  # bytes read at once: large enough that the calls do not count


@dataclass(frozen=True)
class Source:
    """A folder of official files, or the archive that unpacks to it."""

    path: Path

    @property
    def is_archive(self) -> bool:
        """Whether it is a tar file."""
        return self.path.is_file()

    def members(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, IO[bytes]]]:
        """The wanted files as ``(name, stream)``, one at a time.

        A name begins with the folder's own, ``aclImdb/train/pos/0_9.txt``, in both forms. An
        archive is read once from front to back, in its own order; a folder in the order of names.
        Read a stream before asking for the next one.

        Args:
            wanted: whether a name is needed; the others are passed over.

        Raises:
            DataError: the archive is truncated or no tar file, or a file cannot be read.
        """
        return self._packed(wanted) if self.is_archive else self._unpacked(wanted)

    def _unpacked(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, IO[bytes]]]:
        with readable(self.path):
            names = sorted(
                file.relative_to(self.path.parent).as_posix()
                for file in self.path.rglob("*")
                if file.is_file()
            )
        for name in filter(wanted, names):
            file = self.path.parent / name
            with readable(file):
                stream = file.open("rb")
            with stream:
                yield name, _guarded(stream, file)

    def _packed(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, IO[bytes]]]:
        with ExitStack() as opened:
            with readable(self.path):
                stream = opened.enter_context(_decompressed(self.path))
                archive = opened.enter_context(tarfile.open(fileobj=stream, mode="r|"))
            while True:
                with readable(self.path):
                    member = archive.next()
                    if member is None:
                        _check_end(archive, stream, self.path)
                        return
                name = PurePosixPath(member.name).as_posix()  # without a leading "./"
                if member.isfile() and wanted(name):
                    content = archive.extractfile(member)
                    assert content is not None  # a regular file has content
                    yield name, _guarded(content, self.path)


def _decompressed(path: Path) -> io.BufferedIOBase:
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


def _check_end(archive: tarfile.TarFile, stream: io.BufferedIOBase, path: Path) -> None:
    """Tell an archive's end from a place where it is cut off between two members.

    Raises:
        tarfile.TarError: it is cut off.
        EOFError: so is its compressed form.
    """
    while stream.read(CHUNK):  # the length and checksum of the compressed form stand behind it
        pass
    is_plain = isinstance(stream, io.BufferedReader)
    if is_plain and path.stat().st_size < archive.offset + tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends without its end mark")


class _Guarded(io.RawIOBase):
    """A stream whose errors, which show where it is read, name the file they come from."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer) as view, readable(self._path):
            content = self._stream.read(len(view))
            view[: len(content)] = content
        return len(content)


def _guarded(stream: IO[bytes], path: Path) -> IO[bytes]:
    return io.BufferedReader(_Guarded(stream, path), CHUNK)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what can go wrong while ``path`` is read into a message with a remedy.

    Raises:
        DataError: instead of an error of the operating system, of tar or of a decompressor.
    """
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"{path} is truncated or not a tar archive: {error}.\n"
            f"  try: compare its size ({path.stat().st_size:,} bytes) with the source's, and fetch "
            "it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}.\n  try: look at its permissions, "
            "or copy it again"
        ) from error


def find(data_dir: Path, names: Sequence[str]) -> Source | None:
    """The first of ``names`` below ``data_dir`` that exists, or None."""
    for name in names:
        if (data_dir / name).exists():
            return Source(data_dir / name)
    return None


def find_or_say(task: str, data_dir: Path, names: Sequence[str], what: str, remedy: str) -> Source:
    """``find``, where there is nowhere else to look.

    Args:
        task: its name, for the message.
        data_dir: below which ``names`` are looked for.
        names: in order.
        what: what to get, see ``nothing_found``.
        remedy: likewise.

    Raises:
        DataError: there is none; it says what to get.
    """
    source = find(data_dir, names)
    if source is None:
        raise nothing_found(task, [data_dir / name for name in names], what, remedy)
    return source


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The checksum of a file, in hex.

    Args:
        path: the file; it is streamed.
        algorithm: a name that ``hashlib`` knows.

    Raises:
        DataError: it cannot be read.
    """
    found = hashlib.new(algorithm)
    with readable(path), path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def verify(path: Path, algorithm: str, expected: str, otherwise: str) -> None:
    """Compare a file with its official checksum.

    Args:
        path: the file.
        algorithm: of the checksum.
        expected: the official one, in hex.
        otherwise: what to do when the file is meant to be another, for the message.

    Raises:
        DataError: they differ, or the file cannot be read.
    """
    found = digest(path, algorithm)
    if found != expected:
        raise DataError(
            f"{path} is not the official file: its {algorithm} is {found}, not {expected}.\n"
            f"  try: fetch it again, or {otherwise}"
        )


def nothing_found(task: str, looked_for: Sequence[Path | str], what: str, remedy: str) -> DataError:
    """The error when a task has no source: what to get, where to put it, what to run again.

    Args:
        task: its name.
        looked_for: every place, in order: paths, or a place elsewhere in words.
        what: what to get, from whom, and its size.
        remedy: other ways out, such as a stand-in; may be empty.
    """
    places = "".join(f"\n    {place}" for place in looked_for)
    also = f"; or {remedy}" if remedy else ""
    return DataError(
        f"no data for {task}; looked for{places}\n"
        f"  get: {what}\n"
        f"  try: put it at one of these places and run `python scripts/prepare.py task={task}` "
        f"again{also}"
    )
