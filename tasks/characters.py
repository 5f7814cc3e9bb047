"""What the tasks over texts share: characters as numbers, an end behind each text, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN, EOS = 1, 2  # as S4 numbers them; 0 is padding
SPECIAL = 3  # numbers before the first character
CODES = 0x110000  # of Unicode


def codes(text: str) -> NDArray[np.uint32]:
    """The code point of each character; a lone surrogate, which UTF-8 has not, becomes ``?``."""
    return np.frombuffer(text.encode("utf-32-le", errors="replace"), dtype="<u4")


def as_many_as(symbols: int) -> str:
    """An alphabet for so many symbols, of whichever characters."""
    return "".join(map(chr, range(symbols - SPECIAL)))


def with_ends(values: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[Any]:
    """Texts one after the other, of ``lengths`` (n,), each with the end symbol behind it."""
    return np.insert(values, np.cumsum(lengths), EOS)


class Alphabet:
    """The known characters, numbered in their order; pad 0, unknown 1, end 2, then these.

    Args:
        characters: those that are known already.
        dtype: of the numbers; characters for which it has none more are unknown.
    """

    def __init__(self, characters: str = "", dtype: str = "uint8") -> None:
        self._numbers = np.full(CODES, UNKNOWN, dtype)
        self._limit = int(np.iinfo(dtype).max) + 1
        self.characters = ""
        self._add(codes(characters))

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return SPECIAL + len(self.characters)

    def learn(self, texts: Sequence[str]) -> None:
        """Number the characters that are new, as they first occur."""
        text = codes("".join(texts))
        new = text[self._numbers[text] == UNKNOWN]
        if len(new):
            found, first = np.unique(new, return_index=True)
            self._add(found[np.argsort(first)])

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Numbers one text after the other, each with its end symbol; lengths with it (n,)."""
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        return with_ends(self._numbers[codes("".join(texts))], lengths), lengths + 1

    def decode(self, values: Sequence[int]) -> str:
        """The text of some numbers; an unknown character shows as U+FFFD, padding and end not."""
        shown = ["", "\ufffd", "", *self.characters]
        return "".join(shown[value] for value in values)

    def _add(self, new: NDArray[np.uint32]) -> None:
        new = new[: self._limit - self.size]
        self._numbers[new] = np.arange(self.size, self.size + len(new))
        self.characters += "".join(map(chr, new.tolist()))
