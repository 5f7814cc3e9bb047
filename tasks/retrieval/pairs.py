"""Pairs of texts as rows of symbols, and back: characters, and an end symbol behind each text.

The vocabulary is S4's (state-spaces/s4, src/dataloaders/lra.py, AAN): every character that occurs
in train after texts are cut, upper and lower case apart; the rest is unknown. S4 numbers characters
by frequency, which takes a pass of its own over 8 GB; here they are numbered as they first occur:
the same characters under other numbers, in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.characters import CODES, EOS, SPECIAL, UNKNOWN, codes, readable, with_ends
from tasks.storage.rows import Rows, offsets_of

LIMIT = 256  # numbers in all: a byte each. English papers have 98; what would come later is unknown
HORIZONTAL = "\n" + "-" * 72 + "\n"  # between two texts that a person reads


class Pair(NamedTuple):
    """Two texts, and whether one cites the other."""

    first: str
    second: str
    label: int  # 1: there is a citation


class Alphabet:
    """The known characters; grows with every text it learns, until all numbers are taken."""

    def __init__(self, characters: str = "") -> None:
        self._numbers = np.full(CODES, UNKNOWN, dtype=np.uint8)
        self.characters = ""
        self._add(codes(characters))

    @property
    def size(self) -> int:
        """How many numbers there are, pad, unknown and end among them."""
        return SPECIAL + len(self.characters)

    def learn(self, text: NDArray[np.uint32]) -> None:
        """Number the characters of a text, given as code points, that are new."""
        new = text[self._numbers[text] == UNKNOWN]
        if len(new):
            found, first = np.unique(new, return_index=True)
            self._add(found[np.argsort(first)])

    def encode(self, text: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """The number of each code point."""
        return self._numbers[text]

    def decode(self, values: Sequence[int]) -> str:
        """The text of some numbers; an unknown character shows as U+FFFD, padding and end not."""
        return readable(values, self.characters)

    def _add(self, new: NDArray[np.uint32]) -> None:
        new = new[: LIMIT - self.size]
        self._numbers[new] = np.arange(self.size, self.size + len(new))
        self.characters += "".join(map(chr, new.tolist()))


def encode(pairs: Sequence[Pair], alphabet: Alphabet, max_length: int, learn: bool) -> Rows:
    """Rows of two texts one after the other, each cut and with its end symbol.

    Args:
        pairs: any number of them.
        alphabet: numbers the characters.
        max_length: of a text, with the end symbol.
        learn: whether new characters join the alphabet; they do in train alone.
    """
    texts = [text[: max_length - 1] for pair in pairs for text in (pair.first, pair.second)]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)  # (2 n,)
    together = codes("".join(texts))
    if learn:
        alphabet.learn(together)
    values = with_ends(alphabet.encode(together), lengths)
    offsets = offsets_of((lengths + 1).reshape(-1, 2).sum(1))
    return Rows(values, offsets, np.array([pair.label for pair in pairs], dtype=np.int64))


def separate(rows: Rows) -> Rows:
    """The texts of ``n`` pairs as ``2 n`` rows, each with its end symbol; labels as they were."""
    stops = np.flatnonzero(rows.values == EOS) + 1  # (2 n,)
    offsets = np.concatenate([[0], stops])
    if len(offsets) != 2 * len(rows.labels) + 1 or (offsets[::2] != rows.offsets).any():
        raise ValueError("a row is not two texts, each with an end symbol at its end")
    return Rows(rows.values, offsets, rows.labels)


def readable_pair(values: Sequence[int], alphabet: Alphabet) -> str:
    """One row's texts with a line between them, for a person to look at."""
    stop = list(values).index(EOS)
    return HORIZONTAL.join([alphabet.decode(values[:stop]), alphabet.decode(values[stop + 1 :])])
