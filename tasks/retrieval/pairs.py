"""Pairs of texts as rows of symbols, and back: characters, and an end symbol behind each text.

The vocabulary is S4's (state-spaces/s4, src/dataloaders/lra.py, AAN): every character that occurs
in train after texts are cut, upper and lower case apart; the rest is unknown. S4 numbers characters
by frequency, which takes a pass of its own over 8 GB; here they are numbered as they first occur:
the same characters under other numbers, in one pass. A number is a byte: English papers have 98
characters, and what would come behind the 253rd is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.characters import EOS, Alphabet
from tasks.storage.rows import Rows, offsets_of

HORIZONTAL = "\n" + "-" * 72 + "\n"  # between two texts that a person reads


class Pair(NamedTuple):
    """Two texts, and whether one cites the other."""

    first: str
    second: str
    label: int  # 1: there is a citation


def encode(pairs: Sequence[Pair], alphabet: Alphabet, max_length: int, learn: bool) -> Rows:
    """Rows of two texts one after the other, each cut and with its end symbol.

    Args:
        pairs: any number of them.
        alphabet: numbers the characters.
        max_length: of a text, with the end symbol.
        learn: whether new characters join the alphabet; they do in train alone.
    """
    texts = [text[: max_length - 1] for pair in pairs for text in (pair.first, pair.second)]
    if learn:
        alphabet.learn(texts)
    values, lengths = alphabet.encode(texts)  # (2 n,)
    offsets = offsets_of(lengths.reshape(-1, 2).sum(1))
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
