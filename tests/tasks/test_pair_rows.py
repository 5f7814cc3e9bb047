"""Pairs of texts as rows and as batches, beside the same done character by character."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.characters import EOS, SPECIAL, UNKNOWN, Alphabet, codes
from tasks.loader import Encoding
from tasks.retrieval.pairs import (
    Pair,
    encode,
    readable_pair,
    separate,
)
from tasks.storage.rows import Rows

LIMIT = 256  # numbers in all: a byte each

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
many_pairs = st.lists(st.builds(Pair, texts, texts, st.integers(0, 1)), min_size=1, max_size=6)


def naive(pairs: list[Pair], known: list[str], max_length: int, learn: bool) -> list[list[int]]:
    """Rows by the definition: numbers from 3 on in order of occurrence, EOS behind each text."""
    rows = []
    for pair in pairs:
        row: list[int] = []
        for text in (pair.first, pair.second):
            for character in text[: max_length - 1]:
                if learn and character not in known and len(known) < LIMIT - SPECIAL:
                    known.append(character)
                row.append(SPECIAL + known.index(character) if character in known else UNKNOWN)
            row.append(EOS)
        rows.append(row)
    return rows


@settings(max_examples=100)
@given(many_pairs, many_pairs, st.integers(2, 14))
def test_rows_are_what_the_definition_says(train, test, max_length) -> None:
    alphabet, known = Alphabet(), list[str]()
    for pairs, learn in ((train, True), (test, False)):
        rows = encode(pairs, alphabet, max_length, learn)
        expected = naive(pairs, known, max_length, learn)
        assert rows.values.dtype == np.uint8
        assert [
            rows.values[start:stop].tolist()
            for start, stop in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)
        ] == expected
        assert rows.labels.tolist() == [pair.label for pair in pairs]
    assert alphabet.characters == "".join(known)
    assert Alphabet(alphabet.characters).size == alphabet.size == SPECIAL + len(known)


@settings(max_examples=100)
@given(many_pairs)
def test_a_batch_is_both_documents_padded_to_the_longest(pairs) -> None:
    """As S4 pads them: all first documents, all second documents, one common length."""
    alphabet = Alphabet()
    rows = encode(pairs, alphabet, 13, learn=True)
    encoding = Encoding(documents=2, separate=separate)
    values, lengths, *_ = encoding.read(rows, list(range(len(pairs))))
    longest = max(len(text) for pair in pairs for text in (pair.first, pair.second)) + 1
    assert values.shape == (len(pairs), 2, longest)
    assert values.dtype == lengths.dtype == torch.int64
    for row, pair in enumerate(pairs):
        for place, text in enumerate((pair.first, pair.second)):
            assert lengths[row, place] == len(text) + 1
            kept = values[row, place, : len(text) + 1].tolist()
            assert kept == [SPECIAL + alphabet.characters.index(c) for c in text] + [EOS]
            assert not values[row, place, len(text) + 1 :].any()


def test_only_the_first_253_characters_have_a_number() -> None:
    alphabet = Alphabet()
    many = "".join(map(chr, range(1000, 1300)))
    rows = encode([Pair(many, "", 0)], alphabet, 1000, learn=True)
    assert alphabet.size == LIMIT
    assert rows.values[:253].tolist() == list(range(3, 256))
    assert set(rows.values[253:300].tolist()) == {UNKNOWN}
    encode([Pair("another", "", 0)], alphabet, 1000, learn=True)
    assert alphabet.characters == many[:253]


def test_a_row_can_be_read() -> None:
    alphabet = Alphabet("abc")
    rows = encode([Pair("ab", "czb", 1)], alphabet, 9, learn=False)
    first, second = readable_pair(rows.values.tolist(), alphabet).split("\n" + "-" * 72 + "\n")
    assert (first, second) == ("ab", "c\ufffdb")


def test_what_utf8_cannot_hold_is_a_question_mark() -> None:
    assert codes("a\ud800b").tolist() == [ord("a"), ord("?"), ord("b")]


@pytest.mark.parametrize(
    ("values", "offsets"),
    [([5, EOS], [0, 2]), ([5, EOS, 5], [0, 3]), ([5, EOS, EOS, EOS, 5, EOS], [0, 4, 6])],
    ids=["one text", "no end", "three and one"],
)
def test_rows_that_are_no_pairs_are_refused(values, offsets) -> None:
    labels = np.zeros(len(offsets) - 1, dtype=np.int64)
    with pytest.raises(ValueError, match="not two texts"):
        separate(Rows(np.array(values, np.uint8), np.array(offsets), labels))
