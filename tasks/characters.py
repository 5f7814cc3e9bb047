"""What the tasks over texts share: characters as numbers, an end behind each text, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

UNKNOWN, EOS = 1, 2  # as S4 numbers them; 0 is padding
SPECIAL = 3  # numbers before the first character
CODES = 0x110000  # of Unicode

Number = TypeVar("Number", bound=np.integer[Any])


def codes(text: str) -> NDArray[np.uint32]:
    """The code point of each character; a lone surrogate, which UTF-8 has not, becomes ``?``."""
    return np.frombuffer(text.encode("utf-32-le", errors="replace"), dtype="<u4")


def as_many_as(symbols: int) -> str:
    """An alphabet for so many symbols, of whichever characters."""
    return "".join(map(chr, range(symbols - SPECIAL)))


def with_ends(values: NDArray[Number], lengths: NDArray[np.int64]) -> NDArray[Number]:
    """Texts one after the other, of ``lengths`` (n,), each with the end symbol behind it."""
    return np.insert(values, np.cumsum(lengths), EOS)


def readable(values: Sequence[int], alphabet: str) -> str:
    """The text of some numbers; an unknown character shows as U+FFFD, padding and end not.

    Args:
        values: numbers of one text.
        alphabet: the known characters, in the order of their numbers.
    """
    shown = ["", "\ufffd", "", *alphabet]
    return "".join(shown[value] for value in values)
