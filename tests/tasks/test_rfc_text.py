"""From an RFC as published to what a model may see: nothing that names what it cites."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.retrieval.rfc_text import (
    citations,
    mask,
    parse,
    split_header,
    without_pages,
    without_shared_sections,
    year_of,
)
from tests.tasks.rfcs import official


@pytest.mark.parametrize(
    ("text", "masked", "cited"),
    [
        ("see RFC 793.", "see [RFC].", [793]),
        ("see RFC793, and", "see [RFC], and", [793]),
        ("in [RFC-793] and [RFC 768]", "in [RFC] and [RFC]", [793, 768]),
        ("[RFC2119, Section 3]", "[[RFC], Section 3]", [2119]),
        ("RFCs 5077,\n   5246, and 6961.  Next", "[RFC].  Next", [5077, 5246, 6961]),
        ("RFC\n   822 mail", "[RFC] mail", [822]),
        ("RFC #11 and NWG/RFC 12", "[RFC] and NWG/[RFC]", [11, 12]),
        ("RFC No. 448", "[RFC]", [448]),
        ("/info/rfc8446.txt", "/info/[RFC].txt", [8446]),
        ("RFCs 1 to 3", "[RFC]", [1, 3]),
        ("BCP 14, STD-7 and FYI 17, IEN 123", "[RFC], [RFC] and [RFC], [RFC]", []),
        ("info/std13", "info/[RFC]", []),
        ("IEEE Std 802.3", "IEEE Std 802.3", []),
        ("the RFC\n\n2. Overview", "the RFC\n\n2. Overview", []),
        ("this RFC.  2 octets", "this RFC.  2 octets", []),
        ("an RFC, 16 bits", "an RFC, 16 bits", []),
        ("RFC 2.1", "RFC 2.1", []),
        ("MRFC 12 and port 793", "MRFC 12 and port 793", []),
    ],
)
def test_numbers_of_documents_are_masked_and_counted(text, masked, cited) -> None:
    assert mask(text) == masked
    assert citations(text) == set(cited)


@settings(max_examples=100)
@given(
    st.lists(st.integers(1, 99999), min_size=1, max_size=4),
    st.sampled_from(["RFC ", "RFC", "rfc", "[RFC", "RFC-", "RFC\n   ", "RFCs "]),
    st.sampled_from([", ", ",\n   ", " and ", ", and ", "/"]),
)
def test_no_digit_of_a_list_is_left(numbers, series, between) -> None:
    text = "as " + series + between.join(map(str, numbers)) + " says"
    assert not re.search(r"\d", mask(text))
    assert citations(text) == set(numbers)
    assert mask(mask(text)) == mask(text)


@pytest.mark.parametrize(
    "text",
    [
        "[RFC 1" + ", 1" * 5_000,
        "[RFC 1" + " " * 50_000,
        "official " * 50_000,
        "Contents\n\n" + "1." * 50_000 + "x",
    ],
    ids=lambda text: text[:12],
)
def test_no_text_takes_for_ever(text: str) -> None:
    """Of a text twice as long each would take at least four times as long."""
    parsed = parse(7, f"May 1999\n\n{text}")
    assert parsed is not None


def test_a_document_is_cut_to_what_is_its_own() -> None:
    raw = official(
        1234, "A Protocol", 1995, "As RFC 793 and [RFC768] say.", "Obsoletes: 1000, 1001\n"
    )
    parsed = parse(1234, raw)
    assert parsed is not None
    assert " ".join(parsed.text.split()) == (
        "A Protocol 1. Introduction As [RFC] and [RFC] say. More of the introduction. "
        "2. The rest It ends here."
    )
    assert (parsed.year, parsed.listing) == (1995, False)
    assert parsed.cited == {793, 768, 1000, 1001}  # not 2026, which every status names


def test_pages_run_together() -> None:
    text = without_pages("First\nlines\n\nDoe    Standard    [Page 1]\n\f\n\nSecond\n" * 2)
    assert text == "First\nlines\n\nSecond\nFirst\nlines\n\nSecond\n"


def test_the_header_ends_where_the_title_begins() -> None:
    header, body = split_header("Network Working Group\nRFC: 9\n\nObsoletes: 8\n\nA Title\n\nText")
    assert header == "Network Working Group\nRFC: 9\n\nObsoletes: 8"
    assert body == "A Title\n\nText"
    assert split_header("Only text") == ("", "Only text")


@pytest.mark.parametrize(
    "heading", ["Status of This Memo", "1. STATUS OF THIS MEMO", "Copyright Notice", "Contents"]
)
def test_a_shared_section_ends_at_the_next_heading(heading: str) -> None:
    body = f"Title\n\n{heading}\n\n   Shared.\n\n   2. An entry ...... 7\n\nAbstract\n\n   Own."
    assert without_shared_sections(body) == "Title\n\nAbstract\n\n   Own."


def test_centred_headings_end_a_section_too() -> None:
    body = "Status of the Memo\n\n   Shared.\n\n                    Preface\n\n   Own."
    assert without_shared_sections(body).split() == ["Preface", "Own."]


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("ISSN: 2070-1721  May 2021", 2021),
        ("RFC 1999, 7 April 1969", 1969),
        ("October 17, 1969", 1969),
        ("22 Sept. 72", 1972),
        ("NIC 2001  8/14/73", 1973),
        ("RFC 2001", None),
    ],
)
def test_a_date_has_a_month(text: str, year: int | None) -> None:
    assert year_of(text) == year


def test_lists_of_documents_are_told() -> None:
    for title in ("Assigned Numbers", "Internet Official Protocol Standards"):
        assert parse(7, official(7, title, 1990, "Text.")).listing  # type: ignore[union-attr]
    many = ", ".join(map(str, range(100, 260)))
    assert parse(7, official(7, "A Survey", 1990, f"RFCs {many}.")).listing  # type: ignore[union-attr]


def test_without_a_date_there_is_no_document() -> None:
    assert parse(7, "Network Working Group\n\nSome text.") is None
