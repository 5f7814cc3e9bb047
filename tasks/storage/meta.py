"""What is known of a prepared dataset: where it is from, what is in it, and its fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from tasks.storage.rows import Rows

CHECKSUM = "checksum"  # the key of the file's own
LIBRARIES = ("numpy", "pyarrow", "datasets")


@dataclass(frozen=True)
class Origin:
    """Everything that determines the content of a prepared dataset."""

    task: str
    version: int  # of the task's code; raised when the same source gives other rows than before
    # "official" (the hub too), "generated", or the name of a stand-in, e.g. "cifar10-jpeg"
    source: str
    parameters: Mapping[str, Any]  # plain JSON values
    stand_in: bool = False  # other data than the task's name promises: its own name goes with it

    @property
    def key(self) -> str:
        """The name of the prepared folder: ``generated-`` and ten hex digits of all the rest."""
        return f"{self.source}-{checksum_of(dataclasses.asdict(self))[:10]}"


@dataclass(frozen=True, config={"extra": "forbid"})
class SplitMeta:
    """Counts of one split."""

    rows: int
    class_counts: list[int]  # by label
    min_length: int  # in values
    mean_length: float
    max_length: int
    bytes: int  # of its file
    checksum: str  # of its file, in hex, see ``store.checksum``


@dataclass(frozen=True, config={"extra": "forbid"})
class Meta:
    """The content of ``meta.json``."""

    task: str
    version: int
    source: str
    stand_in: bool
    parameters: Mapping[str, Any]
    fingerprint: str  # of the content, see ``Fingerprint``; equal content, equal fingerprint
    splits: Mapping[str, SplitMeta]
    libraries: Mapping[str, str]  # that wrote the files
    seconds: float  # that the preparation took
    # What the task found out on the way, e.g. its vocabulary; plain JSON values. "baselines": what
    # trivial scores reach on test, ``{name: {"accuracy": ..., "auc": ...}}``
    facts: Mapping[str, Any] = field(default_factory=dict)

    def majority_accuracy(self, split: str) -> float:
        """Accuracy on ``split`` of always answering the most frequent class of train."""
        answer = int(np.argmax(self.splits["train"].class_counts))
        counts = self.splits[split].class_counts
        right = counts[answer] if answer < len(counts) else 0
        return right / self.splits[split].rows

    def headline(self) -> str:
        """What they are and how many: ``"listops (generated): 96,000 train / ..."``."""
        sizes = " / ".join(f"{split.rows:,} {name}" for name, split in self.splits.items())
        source = f"{self.source}, a stand-in" if self.stand_in else self.source
        return f"{self.task} ({source}): {sizes}"

    def details(self) -> str:
        """What else is known of them, in a line."""
        train = self.splits["train"]
        return (
            f"length {train.min_length} to {train.max_length}, mean {train.mean_length:.0f}; "
            f"fingerprint {self.fingerprint[:12]}{self._to_beat()}"
        )

    def describe(self) -> str:
        """One line, however long."""
        return f"{self.headline()}; {self.details()}"

    def _to_beat(self) -> str:
        baselines = self.facts.get("baselines", {}).items()
        found = [
            f"{name} {score['accuracy']:.1%} (AUC {score['auc']:.3f})" for name, score in baselines
        ]
        return f"; to beat on test: {', '.join(found)}" if found else ""

    def summary(self) -> dict[str, Any]:
        """What a run's record keeps: all but how and when the files were written."""
        content = dataclasses.asdict(self)
        del content["libraries"], content["seconds"]
        for split in content["splits"].values():
            del split["checksum"]
        return content

    def to_json(self) -> str:
        """The text of ``meta.json``, with a checksum of its own behind the rest."""
        content = dataclasses.asdict(self)
        return json.dumps(content | {CHECKSUM: checksum_of(content)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Meta:
        """The inverse of ``to_json``.

        Raises:
            ValueError: the text is not what was once written, or another version wrote it.
        """
        try:
            content = json.loads(text)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        if not isinstance(content, dict) or CHECKSUM not in content:
            raise ValueError("it has no checksum; an earlier version of this code wrote none")
        if content.pop(CHECKSUM) != checksum_of(content):
            raise ValueError("its text is not the one that was written")
        return cls(**content)


class SplitCounts:
    """Collects a split's ``SplitMeta`` and its part of the fingerprint while rows pass by."""

    def __init__(self) -> None:
        self.rows = self.total = self.longest = 0
        self.shortest: int | None = None
        self.classes = np.zeros(0, dtype=np.int64)
        # One hash per array: together they do not depend on how the rows are cut into blocks.
        self._hashes = {name: hashlib.sha256() for name in ("values", "lengths", "labels")}

    def add(self, rows: Rows) -> None:
        """Count some rows; no label is negative."""
        lengths = rows.lengths
        arrays = {"values": rows.values, "lengths": lengths, "labels": rows.labels}
        if rows.targets is not None:
            arrays["targets"] = rows.targets
        for name, array in arrays.items():
            self._hashes.setdefault(name, hashlib.sha256()).update(_little_endian(array))
        counts = np.bincount(rows.labels, minlength=len(self.classes))
        counts[: len(self.classes)] += self.classes
        self.classes = counts
        if not len(lengths):
            return
        low = int(lengths.min())
        self.shortest = low if self.shortest is None else min(self.shortest, low)
        self.longest = max(self.longest, int(lengths.max()))
        self.rows += len(lengths)
        self.total += int(lengths.sum())

    def meta(self, num_bytes: int, checksum: str) -> SplitMeta:
        """The counts, for a file of ``num_bytes`` bytes."""
        return SplitMeta(
            rows=self.rows,
            class_counts=self.classes.tolist(),
            min_length=self.shortest or 0,
            mean_length=self.total / max(1, self.rows),
            max_length=self.longest,
            bytes=num_bytes,
            checksum=checksum,
        )

    def digests(self) -> dict[str, str]:
        """The hash of each array so far."""
        return {name: digest.hexdigest() for name, digest in self._hashes.items()}


def fingerprint(task_version: int, splits: Mapping[str, SplitCounts]) -> str:
    """64 hex digits that name a dataset's content: the task's version and each split's rows.

    Neither file format, nor record batches, nor the order of the splits, nor the source have a part
    in it: official files and the same rows generated have the same fingerprint.
    """
    return checksum_of([task_version, {name: its.digests() for name, its in splits.items()}])


def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape the files."""
    return {name: version(name) for name in LIBRARIES}


def checksum_of(content: Any) -> str:
    """64 hex digits of plain JSON values; in ``meta.json``, of all its other keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _little_endian(array: NDArray[Any]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
