"""Prepared data on disk: one folder per dataset, whole or absent, read memory-mapped.

``<folder>/{train,val,test}.arrow`` and ``<folder>/meta.json``; what is too long for the latter, a
vocabulary or a tokenizer, is one more table, ``words.arrow``. The folder is written under another
name and renamed when it is complete, by one process at a time; whoever finds it under its own name
needs neither lease nor write access. A task with two inputs stores them one after the other in a
row, told apart by the end symbol of the first.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import xxhash
from datasets import Dataset, Features, Sequence, Value
from datasets.arrow_writer import ArrowWriter
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from tasks.errors import DataError
from tasks.holder import Holder
from tasks.lease import hold
from tasks.screen import Screen
from tasks.sources.files import memory_is_short, out_of_memory
from tasks.storage.meta import Meta, Origin, SplitCounts, SplitMeta, fingerprint, library_versions
from tasks.storage.rows import Rows

META = "meta.json"
CHUNK = 1 << 21  # bytes read at once for a checksum: what a processor's cache holds
SPLITS = ("train", "val", "test")  # in the order in which they are shown; other tables follow


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset, open."""

    meta: Meta
    # columns "values" (a list of the stored type), "label", and "targets" (a list as long) if any
    splits: dict[str, Dataset]


@dataclass(frozen=True)
class Recipe:
    """How a dataset is made where it is not there yet."""

    origin: Origin
    dtype: str  # of the values: the smallest that holds them, e.g. "uint8"
    rows: Callable[[], Iterator[tuple[str, Rows]]]  # each split's rows, split after split
    total: int | None = None  # rows in all, if known beforehand, for the progress bar
    facts: Callable[[], Mapping[str, Any]] = dict  # for ``meta.json``; called behind the last row


def prepare(folder: Path, recipe: Recipe, show: bool = True) -> None:
    """Make the prepared dataset at ``folder``, unless it is there.

    Args:
        folder: becomes the prepared folder.
        recipe: what to write.
        show: print what is done, with a progress bar on a terminal.

    Raises:
        DataError: the folder cannot be written, or what ``recipe.rows`` raises.
    """
    console = Screen(stderr=True, quiet=not show)
    make(folder, lambda partial: _write(partial, recipe, console), console)


def make(folder: Path, write: Callable[[Path], None], console: Screen) -> None:
    """Make a folder, unless it is there, by one process of any number.

    Interrupted at any moment, by whatever means, it leaves no folder or a whole one.

    Args:
        folder: its parents are made.
        write: writes the files into an empty folder, down to the disk.
        console: where it is said that another process is at it.

    Raises:
        DataError: it cannot be written, or what ``write`` raises.
    """
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    with _says_where(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder, console):
            if folder.exists():  # another process made it while this one waited
                return
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            try:
                partial.mkdir()
                write(partial)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            _sync_folder(folder.parent)


def load(folder: Path) -> Prepared:
    """Open a prepared dataset, and check that it is what was once written, byte for byte.

    Raises:
        DataError: a file is missing, truncated, damaged or unreadable, or memory is short.
    """
    with _sound(folder, META):
        meta = Meta.from_json((folder / META).read_text())
    splits = {}
    for name, split in meta.splits.items():
        file = folder / _file(name)
        if not file.exists():
            raise _damaged(folder, file.name, "is missing")
        if file.stat().st_size != split.bytes:
            found = f"has {file.stat().st_size:,} bytes instead of {split.bytes:,}"
            raise _damaged(folder, file.name, found)
        with _sound(folder, file.name):
            # Arrow believes what it maps: a flipped bit among the offsets would end the process.
            if checksum(file) != split.checksum:
                raise ValueError("its bytes are not those that were written")
            splits[name] = Dataset.from_file(str(file))
    return Prepared(meta, splits)


def checksum(file: Path) -> str:
    """XXH3 of a file in hex, about as fast as memory is read: 5 GB in a second."""
    found = xxhash.xxh3_128()
    buffer = memoryview(bytearray(CHUNK))
    with file.open("rb", buffering=0) as stream:
        while length := stream.readinto(buffer):
            found.update(buffer[:length])
    return found.hexdigest()


def _write(partial: Path, recipe: Recipe, console: Screen) -> None:
    """Write all files of a dataset into a folder of its own, down to the disk."""
    origin, began = recipe.origin, time.monotonic()
    what = f"{origin.task} ({origin.source})"
    console.say(f"preparing {what} ...")
    counts: dict[str, SplitCounts] = {}
    writers: dict[str, ArrowWriter] = {}
    no_bar = not console.is_terminal
    with (
        ExitStack() as files,
        Progress(*_columns(), console=console, transient=True, disable=no_bar) as progress,
    ):
        bar = progress.add_task(what, total=recipe.total)
        for name, rows in recipe.rows():
            if name not in writers:
                file = files.enter_context((partial / _file(name)).open("wb"))
                writers[name] = _writer(file, recipe.dtype, rows.targets is not None)
                counts[name] = SplitCounts()
            if rows.labels.min(initial=0) < 0:
                row = counts[name].rows + int((rows.labels < 0).argmax())
                raise DataError(f"{what}: row {row} of {name} has a label below 0")
            writers[name].write_table(_table(rows, recipe.dtype))
            counts[name].add(rows)
            progress.advance(bar, len(rows.labels))
        for writer in writers.values():
            writer.finalize(close_stream=False)
            _sync(writer.stream)
    if "train" not in counts or not counts["train"].rows:
        raise DataError(
            f"{what} has no sample to train with: the source has too few for a split.\n"
            "  try: look at the source's files, and put more there"
        )
    seconds = time.monotonic() - began
    meta = Meta(
        task=origin.task,
        version=origin.version,
        source=origin.source,
        stand_in=origin.stand_in,
        parameters=origin.parameters,
        fingerprint=fingerprint(origin.version, counts),
        splits={
            name: _split_meta(partial, name, counts[name])
            for name in (*SPLITS, *(each for each in counts if each not in SPLITS))
            if name in counts
        },
        libraries=library_versions(),
        seconds=round(seconds, 1),
        facts=recipe.facts(),
    )
    with (partial / META).open("w") as text:
        text.write(meta.to_json())
        _sync(text)
    _sync_folder(partial)
    console.say(f"prepared {meta.headline()} in {seconds:.0f} s")


def _columns() -> list[ProgressColumn]:
    name = TextColumn("{task.description}", markup=False)  # it may hold a path
    return [name, TaskProgressColumn(), TimeRemainingColumn(), BarColumn()]


def _split_meta(partial: Path, name: str, counts: SplitCounts) -> SplitMeta:
    file = partial / _file(name)
    return counts.meta(file.stat().st_size, checksum(file))


def _writer(file: IO[bytes], dtype: str, asked: bool) -> ArrowWriter:
    features = {"values": Sequence(Value(dtype)), "label": Value("int64")}
    if asked:
        features["targets"] = Sequence(Value("int32"))
    return ArrowWriter(features=Features(features), stream=file)


def _table(rows: Rows, dtype: str) -> pa.Table:
    if rows.values.dtype != dtype:
        raise TypeError(f"rows of {rows.values.dtype}, but the recipe says {dtype}")
    offsets = pa.array(rows.offsets, pa.int32())
    values = pa.ListArray.from_arrays(offsets, pa.array(rows.values))
    columns = {"values": values, "label": pa.array(rows.labels, pa.int64())}
    if rows.targets is not None:
        targets = pa.array(rows.targets, pa.int32())
        columns["targets"] = pa.ListArray.from_arrays(offsets, targets)
    return pa.table(columns)


def _file(split: str) -> str:
    return f"{split}.arrow"


def _sync(file: IO[bytes] | IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _alone(folder: Path, console: Screen) -> Iterator[None]:
    """Hold the lease of a prepared folder, of whatever machine; say so if that means waiting."""
    said: set[str] = set()

    def wait(holder: Holder) -> bool:
        if not said:
            who = holder.describe()
            console.say(f"another process prepares {folder} ({who}); waiting for it ...")
        said.add(holder.token)
        return True

    with hold(folder.with_name(f".{folder.name}.lease"), wait):
        yield


@contextmanager
def _says_where(folder: Path) -> Iterator[None]:
    """Turn a read-only, full or broken disk, or too little memory, into a message with a remedy."""
    try:
        yield
    except (OSError, MemoryError) as error:
        if out_of_memory(error):
            raise memory_is_short(f"{folder} cannot be prepared") from error
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            file = next((each for each in folder.parents if each.is_file()), folder)
            raise DataError(
                f"{file} is a file, but the prepared data need a folder of that name.\n"
                "  try: move it elsewhere, or data_dir=<another folder>"
            ) from error
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"the prepared data cannot be written to {folder.parent}: {reason}.\n"
            "  try: free some space there, or data_dir=<a folder you can write to>"
        ) from error


@contextmanager
def _sound(folder: Path, file: str) -> Iterator[None]:
    """Turn damage, or too little memory, into a message that tells the one from the other."""
    try:
        yield
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        if out_of_memory(error):
            size = (folder / file).stat().st_size
            raise memory_is_short(f"{folder / file} ({size:,} bytes) cannot be mapped") from error
        raise _damaged(folder, file, f"cannot be read ({error})") from error


def _damaged(folder: Path, file: str, what: str) -> DataError:
    return DataError(f"{folder / file} {what}.\n  try: delete {folder}, it is then prepared again")
