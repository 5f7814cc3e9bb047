"""Texts as numbers, and back: characters of a vocabulary (S4), or bytes (Tay et al.).

Both are stored as uint16: bytes need 257 numbers, and a vocabulary is not bounded by 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.characters import CODES, SPECIAL, Alphabet, codes

BLOCK = 1000  # texts counted at once, a few megabytes
DTYPE = "uint16"

Encoded = tuple[NDArray[np.uint16], NDArray[np.int64]]  # numbers one after the other, lengths (n,)


@dataclass(frozen=True)
class Characters:
    """Unicode characters and an end symbol; pad 0, unknown 1, end 2, then ``alphabet``.

    Args:
        alphabet: the known characters, in the order of their numbers.
        max_length: with the end symbol; longer texts are cut at their end.
    """

    alphabet: str
    max_length: int

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return SPECIAL + len(self.alphabet)

    def encode(self, texts: Sequence[bytes]) -> Encoded:
        """UTF-8 texts as numbers, each with its end symbol."""
        cut = [text.decode()[: self.max_length - 1] for text in texts]
        return Alphabet(self.alphabet, DTYPE).encode(cut)

    def decode(self, values: Sequence[int]) -> str:
        """The text of one sequence; an unknown character shows as U+FFFD, the end not at all."""
        return Alphabet(self.alphabet, DTYPE).decode(values)


@dataclass(frozen=True)
class Bytes:
    """Bytes plus one, pad 0, no end symbol.

    Args:
        max_length: longer texts are cut at their end, be it inside a character.
    """

    max_length: int
    size: int = 257

    def encode(self, texts: Sequence[bytes]) -> Encoded:
        """UTF-8 texts as numbers."""
        cut = [text[: self.max_length] for text in texts]
        values = np.frombuffer(b"".join(cut), dtype=np.uint8).astype(DTYPE) + 1
        return values, np.array([len(text) for text in cut], dtype=np.int64)

    def decode(self, values: Sequence[int]) -> str:
        """The text of one sequence; a character cut in two shows as U+FFFD."""
        return bytes(value - 1 for value in values if value).decode(errors="replace")


def alphabet_of(texts: Sequence[bytes], max_length: int, min_frequency: int) -> str:
    """The characters that occur often enough, the most frequent first, equals by code point.

    As S4's vocabulary: counted in the cut texts.

    Args:
        texts: UTF-8.
        max_length: with the end symbol, as in ``Characters``.
        min_frequency: the lowest count of a known character.
    """
    counts = np.zeros(CODES, dtype=np.int64)
    for start in range(0, len(texts), BLOCK):
        cut = (text.decode()[: max_length - 1] for text in texts[start : start + BLOCK])
        counts += np.bincount(codes("".join(cut)), minlength=CODES)
    known = np.flatnonzero(counts >= min_frequency)
    order = np.argsort(-counts[known], kind="stable")
    return "".join(map(chr, known[order].tolist()))
