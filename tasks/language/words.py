"""WikiText-103 and WikiText-2 as words: articles of Wikipedia in the official vocabulary.

A token is what stands between two blanks in ``wiki.{train,valid,test}.tokens``, and the end of a
line (Merity et al. 2017); rare words stand there as ``<unk>`` already. Numbers follow the frequency
in train, the most frequent word first. The zip is known by its checksum. Unpacked files could be
any, with their paragraphs in any order: they need a name of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import IO, Any, ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from tasks.errors import DataError
from tasks.language.corpus import Corpus, OfficialConfig, Tokens, as_rows
from tasks.sources.archives import Source, find_or_say
from tasks.sources.files import digest
from tasks.spec import Objective
from tasks.storage.meta import Origin
from tasks.storage.rows import Rows

UNKNOWN, LINE_END = "<unk>", "<eos>"
SPLITS = {"train": "train", "val": "valid", "test": "test"}  # as the files are called
LARGEST = 1 << 30  # bytes of a file; that of WikiText-103 has 0.54 GB
LINES = 1 << 14  # of the text, made numbers at once


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class WikiText103Config(OfficialConfig):
    """``configs/task/wikitext103.yaml`` says the same."""

    name: Literal["wikitext103"] = "wikitext103"
    length: int = 512  # tokens of a window, words are longer than bytes


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class WikiText2Config(OfficialConfig):
    """``configs/task/wikitext2.yaml`` says the same."""

    name: Literal["wikitext2"] = "wikitext2"
    length: int = 512  # tokens of a window, words are longer than bytes


class WikiText103(Corpus):
    """The words of WikiText-103."""

    dtype = "int32"
    metric = "perplexity"
    objective: ClassVar[Objective] = "tokens"
    Config: ClassVar[type] = WikiText103Config
    config: OfficialConfig
    folder_name: ClassVar[str] = "wikitext-103"
    sha256: ClassVar[str] = "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590"
    official_words: ClassVar[int] = 267_735

    @property
    def symbols(self) -> int:
        """Words, the unknown one and the line's end among them."""
        if self.config.stand_in is None:
            return self.official_words
        return int(self.known_facts["words"])

    def origin(self) -> Origin:
        """The official files, or a stand-in."""
        name = self.config.stand_in
        return Origin(self.name, self.version, name or "official", {}, name is not None)

    def find_source(self) -> None:
        """The zip, or of a stand-in the folder that it would unpack to."""
        self._source  # noqa: B018 (raises when there is none)

    def rows(self) -> Iterator[tuple[str, Rows]]:
        """The words, each a row of its code points; then the text, in numbers."""
        self._check()
        counts: Counter[str] = Counter()
        for line in self._lines("train"):
            counts.update(line)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        self._words = [*ranked, *(each for each in (UNKNOWN, LINE_END) if each not in counts)]
        if self.config.stand_in is None and len(self._words) != self.official_words:
            raise DataError(
                f"{self._source.path} has {len(self._words):,} words instead of "
                f"{self.official_words:,}.\n  try: fetch it again"
            )
        yield "words", as_rows([_points(word) for word in self._words])
        yield from super().rows()

    def documents(self) -> Iterator[tuple[str, Tokens]]:
        """The text of each split, some lines at a time."""
        for split in SPLITS:
            found: list[int] = []
            for number, line in enumerate(self._lines(split)):
                found += self._numbers(line)
                if number % LINES == LINES - 1:
                    yield split, np.array(found, dtype=np.int32)
                    found = []
            yield split, np.array(found, dtype=np.int32)

    def facts(self) -> dict[str, Any]:
        """How many words there are; they themselves are a table beside the splits."""
        return {"words": len(self._words)}

    def tokens_of(self, text: str) -> Tokens:
        """Of a text whose words stand between blanks; one that is not known is ``<unk>``."""
        found = [self._numbers(line.split()) for line in text.split("\n")]
        ended = [n for line in found for n in [*line, self._number[LINE_END]]]
        return np.array(ended[:-1], dtype=np.int32)

    def text_of(self, tokens: Sequence[int]) -> str:
        """The words, blanks between them and lines where they end."""
        text = " ".join(self._words[each] for each in tokens)
        return text.replace(f"{LINE_END} ", "\n").replace(LINE_END, "\n")

    @cached_property
    def _words(self) -> list[str]:
        return ["".join(map(chr, each)) for each in self.split("words")["values"]]

    @cached_property
    def _number(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self._words)}

    def _numbers(self, words: Sequence[str]) -> list[int]:
        unknown = self._number[UNKNOWN]
        return [self._number.get(word, unknown) for word in words]

    @cached_property
    def _source(self) -> Source:
        zipped = f"{self.folder_name}-v1.zip"
        what = (
            f"{zipped} (sha256 {self.sha256}), the word level set of Merity et al. 2017; as it is"
        )
        remedy = (
            f"task.stand_in=<name> for other files of this form, {self.folder_name}/"
            "wiki.{train,valid,test}.tokens"
        )
        places = [zipped, *[self.folder_name] * (self.config.stand_in is not None)]
        return find_or_say(self.name, self.data_dir, places, what, remedy)

    def _check(self) -> None:
        """Whether the zip is the official one, where it has to be."""
        path = self._source.path
        if self.config.stand_in is None and (found := digest(path)) != self.sha256:
            raise DataError(
                f"{path} is not the official {path.name}: its sha256 is {found}, not "
                f"{self.sha256}.\n  try: fetch it again, or task.stand_in=<name> to use it under "
                "a name of its own"
            )

    def _lines(self, split: str) -> Iterator[list[str]]:
        """The words of each line of a split, its end among them."""
        name = f"{self.folder_name}/wiki.{SPLITS[split]}.tokens"
        found = False
        for _, stream in self._source.members(lambda each: each == name, LARGEST):
            for line in _text(stream, name):
                found = True
                yield [*line.split(), LINE_END]
        if not found:
            raise DataError(
                f"{self._source.path} has no {name}, or nothing in it.\n  try: fetch it again"
            )


class WikiText2(WikiText103):
    """The words of WikiText-2."""

    Config = WikiText2Config
    folder_name = "wikitext-2"
    sha256 = "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c"
    official_words = 33_278


def _text(stream: IO[bytes], place: str) -> Iterator[str]:
    """The lines, blank ones too: each has an end."""
    try:
        yield from (line.decode() for line in stream)
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not in UTF-8: {error}.\n  try: fetch it again") from error


def _points(word: str) -> Tokens:
    return np.array([ord(each) for each in word], dtype=np.int32)
