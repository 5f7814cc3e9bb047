"""The official Pathfinder pictures of the Long Range Arena, from its folder or its archive.

A set of 200,000 pictures is ``<set>/imgs/<0..199>/sample_<0..999>.png`` with one list per folder of
pictures, ``<set>/metadata/<0..199>.npy``: despite its name plain text, a line per picture, whose
columns are the folder, the file and, in the fourth place, the label. The order of the pictures is
that of the lists by number, and within a list that of its lines (state-spaces/s4,
src/dataloaders/lra.py); the split is S4's.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks import bits
from tasks.errors import DataError
from tasks.pathfinder.png import Unfit, grey_levels
from tasks.screen import Screen
from tasks.sources.archives import Source
from tasks.sources.files import lines, opened, readable
from tasks.storage.rows import Rows

SETS = {6: "curv_baseline", 9: "curv_contour_length_9", 14: "curv_contour_length_14"}
COLUMNS = 11
SPLITS = ("train", "val", "test")
SPLIT_SEED = 42
LARGEST = 1 << 24  # bytes of a list or picture; official ones have some tens of thousands
LIST = re.compile(r"(\d{1,6})\.npy", re.ASCII)
BLOCK = 1000  # pictures decoded at once: 16 MB of 128 x 128
# The official release lists it, but the file is empty; S4 leaves it out too.
EMPTY = ("pathfinder32/curv_baseline", "imgs/0/sample_172.png")


class Listed(NamedTuple):
    """A line of a list."""

    image: str  # below the set's folder
    label: int
    where: str  # list and line, for messages


def read_official(
    source: Source, prefix: str, side: int, expected: int, spool: Path, workers: int
) -> Iterator[tuple[str, Rows]]:
    """The pictures of one set, split by split interleaved, in their official order.

    Of an archive, what is needed is copied into one unnamed file, which vanishes with the process:
    pictures and lists come in any order, and 200,000 of 128 x 128 need not be in memory.

    Args:
        source: the set's own folder, or the archive.
        prefix: how the names of the set's files begin, up to ``imgs`` and ``metadata``.
        side: pixels of a picture's side.
        expected: pictures that there must be.
        spool: a folder on a disk with room, at most 2 GB.
        workers: threads that decode.

    Yields:
        Some rows, uint8 pixels in raster order, and the split they are in.

    Raises:
        DataError: naming the list, line or picture that is missing or malformed.
    """
    with ExitStack() as stack:
        pictures: _Packed | _Unpacked
        if source.is_archive:
            file = stack.enter_context(tempfile.TemporaryFile(dir=spool))
            pictures = _Packed(source, prefix, file)
        else:
            pictures = _Unpacked(source)
        listed = _listed(pictures, prefix)
        if not listed:
            raise DataError(
                f"{source.path} has no lists of pictures in {prefix}metadata.\n"
                "  try: fetch it again, or task.source=generated"
            )
        if len(listed) != expected:
            raise DataError(
                f"{source.path} lists {len(listed):,} pictures in {prefix}metadata, not "
                f"{expected:,}.\n  try: fetch it again; or, if it is meant to be another set, "
                f"task.official_rows={len(listed)}"
            )
        if prefix.endswith(f"{EMPTY[0]}/"):
            listed = [one for one in listed if one.image != EMPTY[1]]
        split = membership(len(listed))
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        for start in range(0, len(listed), BLOCK):
            some = listed[start : start + BLOCK]
            pixels = np.stack([*pool.map(lambda one: _decoded(pictures, one, side), some)])
            labels = np.array([one.label for one in some])
            for number, name in enumerate(SPLITS):
                its = split[start : start + BLOCK] == number
                values = pixels[its].reshape(-1, side * side)  # (n, L)
                yield name, Rows.of_matrix(values, labels[its])


def membership(n: int) -> NDArray[np.int64]:
    """The split of each picture (n,), a place in SPLITS: S4's.

    S4 calls ``torch.utils.data.random_split`` with the lengths of train, val and test, of which
    the latter two are a tenth, rounded down, and a generator of seed 42.
    """
    order = bits.shuffled(n, SPLIT_SEED)
    tenth = int(0.1 * n)
    split = np.zeros(n, dtype=np.int64)
    split[order[n - 2 * tenth : n - tenth]] = 1
    split[order[n - tenth :]] = 2
    return split


class _Unpacked:
    """A set in a folder; pictures are read where they lie."""

    def __init__(self, source: Source) -> None:
        self._folder = source.path
        self.lists: dict[str, bytes] = {}  # by file name
        folder = source.path / "metadata"
        with readable(folder):
            names = [path.name for path in folder.iterdir() if path.suffix == ".npy"]
        for name in names:
            if not name.startswith("."):
                with opened(folder / name, LARGEST) as stream:
                    self.lists[name] = stream.read()
        with readable(source.path):
            self._real = source.path.resolve()

    def read(self, name: str) -> bytes | None:
        """The content of a picture below the set's folder, or None if there is no such."""
        path = self._folder / name
        with readable(path):
            if not path.exists():
                return None
            real = path.resolve()
        if not real.is_relative_to(self._real):
            raise DataError(
                f"{path} leads to {real}, outside of {self._folder}, and a list may not name such "
                "files.\n  try: put the files themselves there, or a link to the whole set"
            )
        with opened(path, LARGEST) as stream:
            return stream.read()


class _Packed:
    """A set in an archive, which is read once; its pictures go into ``file``."""

    def __init__(self, source: Source, prefix: str, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        self.lists: dict[str, bytes] = {}  # likewise
        with readable(source.path):
            size = source.path.stat().st_size
        Screen(stderr=True).say(f"reading {source.path} once, {size / 1e9:.1f} GB ...")
        wanted = (f"{prefix}imgs/", f"{prefix}metadata/")
        end = 0
        for name, stream in source.members(lambda name: name.startswith(wanted), LARGEST):
            content = stream.read()
            short = name.removeprefix(prefix)
            if short.startswith("metadata/"):
                self.lists[short.removeprefix("metadata/")] = content
            else:
                file.write(content)
                self._places[short] = (end, len(content))
                end += len(content)
        file.flush()

    def read(self, name: str) -> bytes | None:
        """Likewise."""
        if name not in self._places:
            return None
        place, length = self._places[name]
        return os.pread(self._file.fileno(), length, place)  # no shared position: for threads


def _listed(pictures: _Packed | _Unpacked, prefix: str) -> list[Listed]:
    """All lines of all lists, in order."""
    listed = []
    for file in sorted(pictures.lists, key=_number):
        where = f"{prefix}metadata/{file}"
        for line in lines(io.BytesIO(pictures.lists[file]), where):
            try:
                content = line.content.decode("ascii")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{where} is not the plain text that it is in the official release.\n"
                    "  try: fetch it again"
                ) from error
            listed.append(_line(content, f"{where}, line {line.number}"))
    return listed


def _number(file: str) -> int:
    match = LIST.fullmatch(file)
    if match is None:
        raise DataError(
            f"metadata/{file[:80]} is no list of the official release, which are 0.npy to 199.npy."
            "\n  try: move it away"
        )
    return int(match[1])


def _line(content: str, where: str) -> Listed:
    columns = content.split()
    if len(columns) != COLUMNS:
        raise DataError(
            f"{where}: {len(columns)} columns instead of {COLUMNS}.\n  try: fetch it again"
        )
    folder, file, _, label = columns[:4]
    if label not in ("0", "1"):
        raise DataError(f"{where}: the label is {label[:20]!r}, not 0 or 1.\n  try: fetch it again")
    image = PurePosixPath(folder) / file
    if image.is_absolute() or ".." in image.parts or not content.isprintable():
        raise DataError(
            f"{where}: {str(image)[:80]!r} is no place below the set's own folder.\n"
            "  try: fetch it again; do not use files from elsewhere that name others of yours"
        )
    return Listed(str(image), int(label), where)


def _decoded(pictures: _Packed | _Unpacked, one: Listed, side: int) -> NDArray[np.uint8]:
    """A picture's grey values (side, side)."""
    content = pictures.read(one.image)
    if content is None:
        raise DataError(f"{one.where}: there is no {one.image}.\n  try: fetch the data again")
    try:
        return grey_levels(content, side)
    except Unfit as error:
        raise DataError(f"{one.where}: {one.image} {error}") from error
