"""The reviews of IMDB (Maas et al. 2011) in one order, wherever they are read.

From ``aclImdb/{train,test}/{neg,pos}/<id>_<rating>.txt``, in a folder or in a tar, or from the hub,
which has no names. So the order is that of the texts themselves, and a checksum of labels and
texts in this order tells the official reviews, however they were packed.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset

from tasks.errors import DataError
from tasks.sources.archives import Source

PLACES = ("aclImdb", "aclImdb_v1.tar.gz", "aclImdb_v1.tar")  # below data_dir, in this order
HUB = "stanfordnlp/imdb"
WHAT = (
    "aclImdb_v1.tar.gz (84,125,825 bytes, md5 7c2ac02c03563afcf9b574c7e56c153a), the Large Movie "
    "Review Dataset of Maas et al. 2011, ai.stanford.edu/~amaas/data/sentiment; unpacked or not"
)
CLASSES = ("neg", "pos")  # by label, as on the hub
LARGEST = 1 << 24  # bytes of a review; the official ones have 13,704 at most
NAME = re.compile(r"aclImdb/(train|test)/(neg|pos)/[^/]+\.txt")
# ``checksum`` of the official splits, 12,500 reviews of each class.
OFFICIAL = {
    "train": "0f01a3794924fee528dc848e007a512be2512f1bac328401288f25484016a7e0",
    "test": "3b8d02373a9c2211b6f21515ebfcf46efa1f4e47e46ef9cc74fc5ab862e4d50e",
}


class Review(NamedTuple):
    """A review as it is; sorts by its text."""

    text: bytes  # UTF-8
    label: int  # of CLASSES


def read_files(source: Source) -> dict[str, list[Review]]:
    """The reviews of ``train`` and of ``test``, sorted, from one pass over the files.

    Raises:
        DataError: a file is unreadable, empty or not UTF-8; a class has no file.
    """
    found: dict[str, list[Review]] = {split: [] for split in OFFICIAL}
    for name, stream in source.members(lambda name: NAME.fullmatch(name) is not None, LARGEST):
        where = f"{source.path}: {name}" if source.is_archive else source.path.parent / name
        _, split, folder, _ = name.split("/")
        found[split].append(Review(_checked(stream.read(), where), CLASSES.index(folder)))
    return {split: _sorted(own, f"{source.path}, {split}") for split, own in found.items()}


def read_hub(splits: dict[str, Dataset]) -> dict[str, list[Review]]:
    """The reviews of ``train`` and of ``test``, sorted.

    Args:
        splits: the hub's, columns ``text`` and ``label``.

    Raises:
        DataError: there are other columns or labels; a class has no review.
    """
    found = {}
    for split, dataset in splits.items():
        place = f"{HUB} on the hub, {split}"
        if not {"text", "label"} <= set(dataset.column_names):
            raise DataError(
                f"{place}: the columns are {', '.join(dataset.column_names)}, not text and "
                "label.\n  try: the official files, see data/README.md"
            )
        found[split] = _sorted(_from_hub(dataset, place), place)
    return found


def checksum(reviews: Iterable[Review]) -> str:
    """The SHA-256 of labels and texts, in order."""
    found = hashlib.sha256()
    for text, label in reviews:
        found.update(b"%d %d " % (label, len(text)) + text)
    return found.hexdigest()


def check_official(reviews: list[Review], split: str, place: str) -> None:
    """Compare a split with the official one.

    Raises:
        DataError: it is another.
    """
    found = checksum(reviews)
    if found != OFFICIAL[split]:
        counts = [sum(label == each for _, label in reviews) for each in range(len(CLASSES))]
        raise DataError(
            f"{place}: the {split} split is not the official one. It has {counts[0]:,} negative "
            f"and {counts[1]:,} positive reviews (official: 12,500 each), checksum {found[:12]} "
            f"(official: {OFFICIAL[split][:12]}).\n"
            "  try: fetch and unpack it again; for other data on purpose task.stand_in=<a name of "
            "theirs>, which then stands beside every number"
        )


def _checked(text: bytes, where: Path | str) -> bytes:
    text = text.removeprefix(codecs.BOM_UTF8)  # no official review has one
    if not text:
        raise DataError(f"{where} is empty.\n  try: fetch and unpack the archive again")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}, byte {error.start}: 0x{text[error.start]:02x} is not UTF-8.\n"
            "  try: fetch and unpack the archive again, or convert the file to UTF-8"
        ) from error
    return text


def _from_hub(dataset: Dataset, place: str) -> Iterator[Review]:
    for batch in dataset.select_columns(["text", "label"]).iter(1000):
        for text, label in zip(batch["text"], batch["label"], strict=True):
            if label not in range(len(CLASSES)):
                raise DataError(
                    f"{place}: the label {label} is neither 0 nor 1.\n"
                    "  try: the official files, see data/README.md"
                )
            yield Review(text.encode(), label)


def _sorted(reviews: Iterable[Review], place: str) -> list[Review]:
    found = sorted(reviews)
    for label, name in enumerate(CLASSES):
        if not any(review.label == label for review in found):
            raise DataError(
                f"{place}: there is no review of the class {name!r}.\n"
                "  try: fetch and unpack the archive again"
            )
    return found
