"""WikiText-103 and WikiText-2 as words: articles of Wikipedia in the official vocabulary.

A token is what stands between two blanks, and the end of a line; rare words stand there as
``<unk>`` already. Numbers follow the frequency in train, the most frequent word first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from tasks.errors import DataError
from tasks.language.corpus import Tokens, as_rows
from tasks.language.wikitext import SPLITS, WikiText, WikiTextConfig
from tasks.storage.rows import Rows

UNKNOWN, LINE_END = "<unk>", "<eos>"
LINES = 1 << 14  # of the text, made numbers at once


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class WikiText103Config(WikiTextConfig):
    """``configs/task/wikitext103.yaml`` says the same."""

    name: Literal["wikitext103"] = "wikitext103"


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class WikiText2Config(WikiTextConfig):
    """``configs/task/wikitext2.yaml`` says the same."""

    name: Literal["wikitext2"] = "wikitext2"


class WikiText103(WikiText):
    """The words of WikiText-103."""

    Config: ClassVar[type] = WikiText103Config
    edition = "wikitext-103"
    sha256 = "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590"
    official_words: ClassVar[int] = 267_735

    @property
    def symbols(self) -> int:
        """Words, the unknown one and the line's end among them."""
        if self.config.stand_in is None:
            return self.official_words
        return int(self.known_facts["words"])

    @property
    def end(self) -> int:
        """That of a line."""
        return self._number[LINE_END]

    def rows(self) -> Iterator[tuple[str, Rows]]:
        """The words, each a row of its code points; then the text, in numbers."""
        self.check_source()
        counts: Counter[str] = Counter()
        for line in self._lines("train"):
            counts.update(line)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        self._words = [*ranked, *(each for each in (UNKNOWN, LINE_END) if each not in counts)]
        if self.config.stand_in is None and len(self._words) != self.official_words:
            raise DataError(
                f"train of {self.edition} has {len(self._words):,} words instead of "
                f"{self.official_words:,}.\n  try: fetch it again"
            )
        self.found = {"words": len(self._words)}  # they themselves are a table beside the splits
        yield "words", as_rows([_points(word) for word in self._words])
        yield from super().rows()

    def documents(self) -> Iterator[tuple[str, Tokens]]:
        """The text of each split, some lines at a time."""
        for split in SPLITS:
            lines = self._lines(split)
            while some := [*islice(lines, LINES)]:
                yield split, np.array([n for line in some for n in self._numbers(line)], np.int32)

    def lexicon(self) -> str:
        """The words, one a line, in the order of their numbers."""
        return "\n".join(self._words)

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
        if self._lexicon is not None:
            return self._lexicon.split("\n")
        return ["".join(map(chr, each)) for each in self.split("words")["values"]]

    @cached_property
    def _number(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self._words)}

    def _numbers(self, words: Sequence[str]) -> list[int]:
        unknown = self._number[UNKNOWN]
        return [self._number.get(word, unknown) for word in words]

    def _lines(self, split: str) -> Iterator[list[str]]:
        """The words of each line of a split, its end among them."""
        return ([*line.split(), LINE_END] for line in self.lines(split))


class WikiText2(WikiText103):
    """The words of WikiText-2."""

    Config = WikiText2Config
    edition = "wikitext-2"
    sha256 = "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c"
    train_lines = 36_718
    official_words = 33_278


def _points(word: str) -> Tokens:
    return np.array([ord(each) for each in word], dtype=np.int32)
