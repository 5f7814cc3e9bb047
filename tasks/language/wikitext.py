"""WikiText: good articles of Wikipedia line by line, from the official zips or the hub.

Merity et al. 2017. ``wikitext-103`` and ``wikitext-2`` have words between blanks and the rare ones
as ``<unk>``; ``wikitext-103-raw`` has the articles as they were written. A zip is known by its
checksum, the hub's sets by the number of their lines. Unpacked files could be any, with their
paragraphs in any order: they need a name of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from functools import cached_property
from typing import IO, Any, ClassVar, Literal

from datasets import Dataset
from pydantic.dataclasses import dataclass

from tasks.errors import DataError
from tasks.language.corpus import Corpus, OfficialConfig
from tasks.sources.archives import Source
from tasks.sources.files import digest
from tasks.sources.locate import locate
from tasks.spec import Objective
from tasks.storage.meta import Origin

HUB = "Salesforce/wikitext"
# split: as its file is called, and as the hub calls it
SPLITS = {"train": ("train", "train"), "val": ("valid", "validation"), "test": ("test", "test")}
HELD_OUT = {"val": 3_760, "test": 4_358}  # lines, the same articles in all editions
LARGEST = 1 << 30  # bytes of a file; that of WikiText-103 has 0.54 GB


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class WikiTextConfig(OfficialConfig):
    """Where the articles are read from, and how they are cut."""

    length: int = 512  # tokens of a window, words are longer than bytes
    # auto: the official zip if it is found, else the hub; both have the same content
    source: Literal["auto", "official", "hub"] = field(default="auto", metadata={"identity": False})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stand_in is not None and self.source == "hub":
            raise ValueError("a stand_in is read from files: leave out source=hub")


class WikiText(Corpus):
    """An edition of WikiText; a subclass says what its tokens are."""

    dtype = "int32"
    metric = "perplexity"
    objective: ClassVar[Objective] = "tokens"
    config: Any  # a WikiTextConfig
    edition: ClassVar[str]  # the folder that its zip unpacks to
    ending: ClassVar[str] = "tokens"  # of its files
    sha256: ClassVar[str]  # of the zip
    train_lines: ClassVar[int] = 1_801_350

    def origin(self) -> Origin:
        """The official articles, wherever they are read, or a stand-in."""
        return self.given({})

    @cached_property
    def _source(self) -> Source | dict[str, Dataset]:
        zipped, own = f"{self.edition}-v1.zip", self.config.stand_in is not None
        files = f"{self.edition}/wiki.{{train,valid,test}}.{self.ending}"
        what = (
            f"{zipped} (sha256 {self.sha256}) of Merity et al. 2017, as it is; with "
            f"task.stand_in=<name> other files of this form, {files}"
        )
        return locate(
            self.name,
            self.data_dir,
            [zipped, *[self.edition] * own],
            None if own else HUB,
            "official" if own else self.config.source,
            what,
            f"{self.edition}-v1",
            [hub for _, hub in SPLITS.values()],
        )

    def check_source(self) -> None:
        """Whether it is the official one, where it has to be.

        Raises:
            DataError: it is another.
        """
        if self.config.stand_in is not None:
            return
        if isinstance(self._source, Source):
            path = self._source.path
            if (found := digest(path)) != self.sha256:
                raise DataError(
                    f"{path} is not the official {path.name}: its sha256 is {found}, not "
                    f"{self.sha256}.\n  try: fetch it again, or task.stand_in=<name> to use it "
                    "under a name of its own"
                )
            return
        for split, lines in {"train": self.train_lines, **HELD_OUT}.items():
            dataset = self._source[SPLITS[split][1]]
            found_lines = len(dataset) if "text" in dataset.column_names else 0
            if found_lines != lines:
                raise DataError(
                    f"{HUB} on the hub, {self.edition}-v1: {split} has {found_lines:,} lines of "
                    f"text instead of {lines:,}.\n  try: {self.edition}-v1.zip, and "
                    "task.source=official"
                )

    def lines(self, split: str) -> Iterator[str]:
        """The lines of a split, without their ends; some are blank.

        Raises:
            DataError: there is none, or it is not in UTF-8.
        """
        file, hub = SPLITS[split]
        if not isinstance(self._source, Source):
            for batch in self._source[hub].select_columns("text").iter(1000):
                yield from (line.rstrip("\n") for line in batch["text"])
            return
        name, found = f"{self.edition}/wiki.{file}.{self.ending}", False
        for _, stream in self._source.members(lambda each: each == name, LARGEST):
            for line in _text(stream, name):
                found = True
                yield line.rstrip("\n")
        if not found:
            raise DataError(
                f"{self._source.path} has no {name}, or nothing in it.\n  try: fetch it again"
            )


def _text(stream: IO[bytes], place: str) -> Iterator[str]:
    try:
        yield from (line.decode() for line in stream)
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not in UTF-8: {error}.\n  try: fetch it again") from error
