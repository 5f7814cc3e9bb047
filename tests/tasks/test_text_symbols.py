"""Texts to numbers and back, against plain loops."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.text import symbols as text_symbols
from tasks.text.symbols import Bytes, Characters, alphabet_of

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=6)
SOME = 'The <br />"quick"\tCafé\x96 – 🎬'


def split(encoded) -> list[list[int]]:
    values, lengths = encoded
    assert values.dtype == "uint16"
    rest, found = values.tolist(), []
    for length in lengths.tolist():
        found.append(rest[:length])
        rest = rest[length:]
    assert not rest
    return found


def utf8(texts: list[str]) -> list[bytes]:
    return [text.encode() for text in texts]


@given(TEXTS, st.integers(2, 10))
def test_characters_are_numbered_one_by_one(texts: list[str], max_length: int) -> None:
    alphabet = "aeé–🎬"
    number = {character: 3 + place for place, character in enumerate(alphabet)}
    expected = [[*(number.get(c, 1) for c in text[: max_length - 1]), 2] for text in texts]
    symbols = Characters(alphabet, max_length)
    assert split(symbols.encode(utf8(texts))) == expected
    assert symbols.size == 8
    for text, values in zip(texts, expected, strict=True):
        shown = "".join(c if c in alphabet else "\ufffd" for c in text[: max_length - 1])
        assert symbols.decode(values) == shown


@given(TEXTS, st.integers(2, 10))
def test_bytes_are_themselves_plus_one(texts: list[str], max_length: int) -> None:
    symbols = Bytes(max_length)
    expected = [[byte + 1 for byte in text.encode()[:max_length]] for text in texts]
    assert split(symbols.encode(utf8(texts))) == expected
    assert symbols.size == 257
    for text, values in zip(texts, expected, strict=True):
        assert symbols.decode(values) == text.encode()[:max_length].decode(errors="replace")


@given(TEXTS, st.integers(2, 10), st.integers(1, 4))
def test_the_alphabet_is_counted_in_the_cut_texts(texts, max_length, min_frequency) -> None:
    counts = Counter("".join(text[: max_length - 1] for text in texts))
    often = [character for character in counts if counts[character] >= min_frequency]
    expected = "".join(sorted(often, key=lambda character: (-counts[character], character)))
    assert alphabet_of(utf8(texts), max_length, min_frequency) == expected


def test_the_alphabet_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = utf8([SOME, "abc", "bcd", "cde", SOME[:9]])
    whole = alphabet_of(texts, 100, 1)
    monkeypatch.setattr(text_symbols, "BLOCK", 2)
    assert alphabet_of(texts, 100, 1) == whole


@pytest.mark.parametrize("symbols", [Characters("".join(dict.fromkeys(SOME)), 100), Bytes(100)])
def test_case_quotes_tabs_tags_and_controls_are_kept(symbols) -> None:
    values, _ = symbols.encode([SOME.encode()])
    assert symbols.decode(values.tolist()) == SOME
