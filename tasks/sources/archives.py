"""Official files where they lie: unpacked in a folder, or still inside their tar or zip archive.

Both are read the same way, one file after the other, and an archive is never unpacked: of 8 GB of
the Long Range Arena only the members that a task needs pass through memory, one at a time.
"""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from tasks.errors import DataError
from tasks.sources.files import (
    CHUNK,
    ERRORS,
    check_regular,
    decompressed,
    guarded,
    readable,
    too_large,
)

# What may stand in front of a file for its name and the like; tarfile reads it whole.
HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
LONGEST_HEADER = 1 << 20  # bytes
ENCRYPTED = 1  # a bit of a zip's member
LONGEST_END = 1 << 28  # bytes behind the end mark; tar fills up with some thousand zeros


@dataclass(frozen=True)
class Source:
    """A folder of official files, or the archive that unpacks to it."""

    path: Path

    @property
    def is_archive(self) -> bool:
        """Whether it is a file."""
        return self.path.is_file()

    def members(self, wanted: Callable[[str], bool], limit: int) -> Iterator[tuple[str, IO[bytes]]]:
        """The wanted files as ``(name, stream)``, one at a time.

        A name begins with the folder's own, ``aclImdb/train/pos/0_9.txt``, in both forms. An
        archive is read once from front to back, in its own order; a folder in the order of names.
        Only regular files are read; of a folder also those that a person's own links lead to.
        Hidden files are not part of a set: macOS leaves one beside each, ``._0_9.txt``.
        Read a stream before asking for the next one.

        Args:
            wanted: whether a name is needed; the others are passed over.
            limit: bytes that a file may have.

        Raises:
            DataError: the archive is truncated, damaged or none; a file cannot be read, is
                too large or is there twice.
        """
        seen: set[str] = set()

        def is_needed(name: str) -> bool:
            hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)
            return not hidden and wanted(name)

        if not self.is_archive:
            read = self._unpacked
        else:
            with readable(self.path):
                read = self._zipped if zipfile.is_zipfile(self.path) else self._packed
        for name, stream in read(is_needed, limit):
            if name in seen:
                raise DataError(
                    f"{self.path} has {name} twice, and nothing says which one counts.\n"
                    "  try: fetch it again, or pack it anew"
                )
            seen.add(name)
            yield name, stream

    def _unpacked(
        self, needed: Callable[[str], bool], limit: int
    ) -> Iterator[tuple[str, IO[bytes]]]:
        def name_of(file: Path) -> str:
            return file.relative_to(self.path.parent).as_posix()

        for name in sorted(map(name_of, _files(self.path, lambda file: needed(name_of(file))))):
            file = self.path.parent / name
            with readable(file):
                check_regular(file)
                stream = file.open("rb")
            with stream:
                yield name, guarded(stream, file, file, limit)

    def _zipped(self, needed: Callable[[str], bool], limit: int) -> Iterator[tuple[str, IO[bytes]]]:
        with ExitStack() as opened:
            with _readable_header(self.path):
                archive = opened.enter_context(zipfile.ZipFile(self.path))
                files = [each for each in archive.infolist() if not each.is_dir()]
            for member in files:
                name = PurePosixPath(member.filename).as_posix()
                if not needed(name):
                    continue
                place = f"{self.path}: {name}"
                if member.file_size > limit:
                    raise too_large(place, limit)
                if member.flag_bits & ENCRYPTED:
                    raise DataError(f"{place} is encrypted.\n  try: pack it without a password")
                with _readable_header(self.path):
                    stream = opened.enter_context(archive.open(member))
                yield name, guarded(stream, self.path, place, limit)

    def _packed(self, needed: Callable[[str], bool], limit: int) -> Iterator[tuple[str, IO[bytes]]]:
        with ExitStack() as opened:
            with _readable_header(self.path):
                stream = opened.enter_context(decompressed(self.path))
                archive = opened.enter_context(
                    tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member)
                )
            while True:
                with _readable_header(self.path):
                    member = archive.next()
                    # Kept for random access, which a stream has not; the arena has millions.
                    archive.members.clear()  # type: ignore[attr-defined]
                if member is None:
                    with readable(self.path):
                        _check_end(archive, stream, self.path)
                    return
                name = PurePosixPath(member.name).as_posix()  # without a leading "./"
                if member.isfile() and needed(name):
                    place = f"{self.path}: {name}"
                    if not 0 <= member.size <= limit:
                        raise too_large(place, limit)
                    content = archive.extractfile(member)
                    assert content is not None  # a regular file has content
                    yield name, guarded(content, self.path, place, limit)


class _Member(tarfile.TarInfo):
    """What stands in front of a file in an archive; refused where tarfile would trust it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):  # else it is the end mark; tarfile would take a damaged one for that too
                raise tarfile.ReadError(str(error)) from error
            raise
        if member.size < 0 or (member.type in HEADERS and member.size > LONGEST_HEADER):
            raise tarfile.ReadError(f"a header that says it has {member.size:,} bytes")
        return member


@contextmanager
def _readable_header(path: Path) -> Iterator[None]:
    with readable(path):
        try:
            yield
        except ERRORS:
            raise
        except Exception as error:  # both modules trust what they read: damage can lead anywhere
            raise tarfile.ReadError(f"a damaged header ({type(error).__name__})") from error


def is_archive(path: Path) -> bool:
    """Whether a file is a tar, compressed or not, or a zip: by what it begins or ends with.

    Raises:
        DataError: it cannot be read.
    """
    with readable(path):
        return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def _files(
    folder: Path, wanted: Callable[[Path], bool], above: frozenset[Path] = frozenset()
) -> Iterator[Path]:
    """The wanted files below a folder and below those that it links to, but not round in a circle.

    Raises:
        DataError: a folder cannot be read, or a link that is wanted leads nowhere.
    """
    with readable(folder):
        real = folder.resolve()
        found = [] if real in above else [*folder.iterdir()]
        inside = [(entry, _mode(entry)) for entry in found if not entry.name.startswith(".")]
    for entry, mode in inside:
        if stat.S_ISDIR(mode):
            yield from _files(entry, wanted, above | {real})
        elif stat.S_ISREG(mode) and wanted(entry):
            yield entry
        elif stat.S_ISLNK(mode) and wanted(entry):
            raise DataError(
                f"{entry} is a link to {entry.readlink()}, where nothing can be read.\n"
                "  try: put the files themselves there, or delete the link"
            )


def _mode(entry: Path) -> int:
    """What an entry of a folder is, or where its link leads; a link if that leads nowhere."""
    try:
        return entry.stat().st_mode
    except OSError:
        return stat.S_IFLNK if entry.is_symlink() else 0  # 0: deleted meanwhile


def _check_end(archive: tarfile.TarFile, stream: io.BufferedIOBase, path: Path) -> None:
    """Tell an archive's end from a place where it is cut off between two members.

    Raises:
        tarfile.TarError: it is cut off, or there is nothing before its end.
        EOFError: its compressed form is cut off.
    """
    if not archive.offset:  # a download that has room and no content yet looks like this
        raise tarfile.ReadError("it begins with zeros, as a tar without any file does")
    for _ in range(LONGEST_END // CHUNK):
        if not stream.read(CHUNK):  # here the compressed form's length and checksum are compared
            break
    else:
        raise tarfile.ReadError(f"more than {LONGEST_END:,} bytes behind its end mark")
    is_plain = isinstance(stream, io.BufferedReader)
    if is_plain and path.stat().st_size < archive.offset + tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends without its end mark")


def find(data_dir: Path, names: Sequence[str]) -> Source | None:
    """The first of ``names`` below ``data_dir`` that exists, or None.

    Raises:
        DataError: the folder cannot be read.
    """
    with readable(data_dir):
        return next((Source(data_dir / name) for name in names if (data_dir / name).exists()), None)


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
        f"  try: put it at one of these places and run `chela prepare task={task}` "
        f"again{also}"
    )
