"""The official files of ListOps: where they are looked for, read, and told from other sets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import DataError
from tasks.listops.tsv import read_tsv
from tasks.sources.archives import Source, find, nothing_found
from tasks.sources.files import opened, readable
from tasks.sources.lra import ARCHIVES, WHAT
from tasks.storage.rows import Rows

SPLITS = ("train", "val", "test")
# Where official files are looked for below data_dir, in this order: unpacked (the two folders are
# what the archive of the Long Range Arena unpacks to), then inside that archive.
PLACES = ("listops", "lra_release/listops-1000", "lra_release/lra_release/listops-1000")
MEMBER = re.compile(r"(?:^|/)listops-1000/basic_(train|val|test)\.tsv$")
LARGEST = 1 << 34  # bytes of a file; basic_train.tsv has half a gigabyte
# No checksum of the files is published. What is: how many trees there are, and the law, by which
# they have 1,035 symbols on average; the mean of 2,000 trees is within 10 of it.
ROWS = {"train": 96_000, "val": 2_000, "test": 2_000}
MEAN_LENGTH = range(985, 1086)

Official = dict[str, Path] | Source  # the file of each split, or the archive that they are in


def find_official(data_dir: Path, tsv_dir: str | None) -> Official | None:
    """The official files, or None if there are none.

    Args:
        data_dir: below which the known places are looked for,
        tsv_dir: unless a folder is given.

    Raises:
        DataError: only some of the files are there.
    """
    for folder in _folders(data_dir, tsv_dir):
        files = {split: folder / f"basic_{split}.tsv" for split in SPLITS}
        with readable(folder):
            found = [file for file in files.values() if file.exists()]
        if len(found) == len(files):
            return files
        if found:
            missing = ", ".join(file.name for file in files.values() if file not in found)
            raise DataError(
                f"{folder} has {found[0].name}, but not {missing}.\n"
                "  try: put all three files there, or task.source=generated"
            )
    return find(data_dir, ARCHIVES) if tsv_dir is None else None


def not_found(data_dir: Path, tsv_dir: str | None) -> DataError:
    """The error when the files are needed and not there."""
    places: list[Path | str] = [
        f"{folder}/basic_{{train,val,test}}.tsv" for folder in _folders(data_dir, tsv_dir)
    ]
    places += [data_dir / name for name in ARCHIVES] if tsv_dir is None else []
    what = f"{WHAT}. Of it listops-1000 is needed"
    remedy = "task.tsv_dir=<their folder>; or task.source=generated"
    return nothing_found("listops", places, what, remedy)


def read_official(official: Official, is_official: bool) -> Iterator[tuple[str, Rows]]:
    """The trees of each split, some at a time.

    Raises:
        DataError: a file is missing, malformed or another than the official one.
    """
    for split, place, blocks in _files(official):
        rows = symbols = 0
        for block in blocks:
            rows += len(block.labels)
            symbols += len(block.values)
            yield split, block
        mean = symbols / rows
        if is_official and (rows != ROWS[split] or round(mean) not in MEAN_LENGTH):
            raise DataError(
                f"{place} is not the official file: it has {rows:,} trees of {mean:,.0f} symbols "
                f"on average, not {ROWS[split]:,} of 1,035.\n"
                "  try: copy it again; for other trees on purpose task.stand_in=<a name of "
                "theirs>, which then stands beside every number"
            )


def _files(official: Official) -> Iterator[tuple[str, Path, Iterator[Rows]]]:
    if not isinstance(official, Source):
        for split, path in official.items():
            with opened(path, LARGEST) as stream:
                yield split, path, read_tsv(stream, path)
        return
    missing = [*SPLITS]
    for name, stream in official.members(lambda name: MEMBER.search(name) is not None, LARGEST):
        split = name.rpartition("_")[2].removesuffix(".tsv")
        if split not in missing:
            raise DataError(
                f"{official.path} has listops-1000/basic_{split}.tsv twice, in two folders.\n"
                "  try: unpack the right one to listops/"
            )
        missing.remove(split)
        yield split, official.path / name, read_tsv(stream, official.path / name)
    if missing:
        raise DataError(
            f"{official.path} has no listops-1000/basic_{{{','.join(missing)}}}.tsv.\n"
            "  try: fetch it again, or task.source=generated"
        )


def _folders(data_dir: Path, tsv_dir: str | None) -> list[Path]:
    return [data_dir / place for place in PLACES] if tsv_dir is None else [Path(tsv_dir)]
