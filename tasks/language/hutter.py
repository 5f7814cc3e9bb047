"""enwik8 and text8: the first 10^8 bytes of Wikipedia, as they are and as letters.

Mahoney's files, split 90 : 5 : 5 million. enwik8 is XML in UTF-8, a token a byte; text8 has the
letters a to z and blanks alone, a token one of these 27 signs. A checksum tells the official bytes,
packed or not; other bytes need a name of their own and are split in the same shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import PurePosixPath
from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from tasks.errors import DataError
from tasks.language.corpus import Corpus, OfficialConfig, Tokens, as_bytes, by_share
from tasks.sources.archives import Source, find_or_say
from tasks.sources.files import check_md5, opened
from tasks.spec import Objective
from tasks.storage.meta import Origin

LARGEST = 1 << 30  # bytes of a corpus; the official ones have 10^8
LETTERS = " abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class Enwik8Config(OfficialConfig):
    """``configs/task/enwik8.yaml`` says the same."""

    name: Literal["enwik8"] = "enwik8"


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class Text8Config(OfficialConfig):
    """``configs/task/text8.yaml`` says the same."""

    name: Literal["text8"] = "text8"


class Enwik8(Corpus):
    """The bytes of enwik8."""

    Config: ClassVar[type] = Enwik8Config
    config: OfficialConfig
    md5: ClassVar[str] = "a1fa5ffddb56f4953e226637dabbb36a"  # as on mattmahoney.net/dc/textdata

    def origin(self) -> Origin:
        """The official bytes, or a stand-in."""
        return self.given({})

    def documents(self) -> Iterator[tuple[str, Tokens]]:
        """The one text in three parts."""
        return by_share(self._tokens(self._content(), str(self._source.path)))

    @cached_property
    def _source(self) -> Source:
        what = (
            f"{self.name}.zip (100,000,000 bytes when unpacked, md5 {self.md5}), from "
            "mattmahoney.net/dc; unpacked or not"
        )
        remedy = "task=bytes task.path=<a file>, for any text of your own"
        places = [f"{self.name}.zip", f"{self.name}/{self.name}"]
        return find_or_say(self.name, self.data_dir, places, what, remedy)

    def _content(self) -> bytes:
        path = self._source.path
        with ExitStack() as files:
            if path.suffix == ".zip":
                members = self._source.members(
                    lambda name: PurePosixPath(name).name == self.name, LARGEST
                )
                stream = next((stream for _, stream in members), None)
            else:
                stream = files.enter_context(opened(path, LARGEST))
            if stream is None:
                raise DataError(f"{path} has no file {self.name}.\n  try: fetch it again")
            content = stream.read()
        if self.config.stand_in is None and content:
            check_md5(content, self.md5, path)
        return content

    def _tokens(self, content: bytes, place: str) -> Tokens:
        return as_bytes(content, place)


class Text8(Enwik8):
    """The 27 signs of text8."""

    metric = "bits_per_character"
    objective: ClassVar[Objective] = "characters"
    Config = Text8Config
    md5 = "3bea1919949baf155f99411df5fada7e"

    @property
    def symbols(self) -> int:
        """Blank and letters."""
        return len(LETTERS)

    @property
    def end(self) -> None:
        """There is one text alone."""
        return None

    def text_of(self, tokens: Sequence[int]) -> str:
        """The signs."""
        return "".join(LETTERS[each] for each in tokens)

    def tokens_of(self, text: str) -> Tokens:
        """Of a text in small letters and blanks.

        Raises:
            DataError: it has other signs.
        """
        return self._tokens(text.encode(), "the text")

    def _tokens(self, content: bytes, place: str) -> Tokens:
        numbers = np.full(256, len(LETTERS), dtype=np.uint8)
        numbers[np.frombuffer(LETTERS.encode(), dtype=np.uint8)] = np.arange(len(LETTERS))
        tokens = numbers[as_bytes(content, place)]
        if other := np.flatnonzero(tokens == len(LETTERS)).tolist()[:1]:
            raise DataError(
                f"{place}: byte {other[0]:,} is {content[other[0]]:#04x}, neither a blank nor a "
                "small letter.\n  try: text of the letters a to z and blanks alone"
            )
        return tokens
