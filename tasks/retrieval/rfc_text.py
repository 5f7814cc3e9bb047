"""From the IETF's text of an RFC to a text for a model, and the documents that it cites.

What goes: page breaks with running heads and feet; the header, which names the documents that this
one replaces; the sections that all documents share (status, copyright, contents); and the number of
every RFC, BCP, STD, FYI and IEN, which becomes ``[RFC]``, for a number would tell what is cited.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# The number of a document, or a list of them, behind the name of its series: "RFC 793",
# "rfc793.txt", "[RFC-793]", "RFCs 5077, 5246, and\n 6961". Series other than RFC must be written in
# one case, so that "IEEE Std 802" is left alone.
SERIES = r"(?<![A-Za-z])(?:[Rr][Ff][Cc]|BCP|STD|FYI|IEN|bcp|std|fyi|ien)s?"
GAP = r"[ \t]*(?:\n[ \t]*)?"  # at most one line's end, no empty line; one way to match it
BEFORE = rf"(?:{GAP}|[ \t]*[-#_:/]{GAP})(?:[Nn][Oo]\.?{GAP})?"
NUMBER = r"\d{1,5}(?!\d|\.\d)"
AND = rf"(?:{GAP},{GAP}(?:(?:and|or){GAP})?|{GAP}(?:and|or|through|to|&){GAP}|{GAP}[-/]{GAP})"
NUMBERS = rf"{BEFORE}({NUMBER}(?:{AND}{NUMBER})*)"
CITED = re.compile(rf"({SERIES}){NUMBERS}")
MASKED = re.compile(rf"\[{SERIES}{NUMBERS}\]|{SERIES}{NUMBERS}")  # both brackets go, or neither
REPLACES = re.compile(r"^(?:Obsoletes|Updates):?\s*((?:RFCs?|[\d,\s]|and)+)", re.M | re.I)
MASK = "[RFC]"

FOOT = re.compile(r"\[Page\s+[\divxlc]+\]\s*$", re.I)
RUNNING_HEAD = re.compile(r"^RFC \d+\s.*\s(?:19|20)\d\d\s*$")
HEADER = re.compile(
    r"^\s*(?:Network Working Group|Internet Engineering Task Force|Internet Architecture Board"
    r"|Internet Research Task Force|Independent Submission|Request for Comments|RFC\s*[#:-]?\s*\d"
    r"|NWG|Obsoletes|Updates|Category|ISSN|NIC|STD|BCP|FYI)\b",
    re.I | re.M,
)
SHARED = re.compile(
    r"\s*(?:\d+\.?\s+)?(?:status of (?:this|the) (?:memo|document)|copyright(?: and licen[cs]e)?"
    r"(?: notice)?|(?:table of )?contents)\s*[.:]?\s*",
    re.I,
)
# A line of a table of contents: dots, or a section's number and title, then the page's number.
ENTRY = re.compile(r"(?:\.\s?\.|\s{2}).*\d+\s*$|^\S*\d+(?:\.\d+)*\.?\s+\S.*\s\d+\s*$")
CENTRED = 15  # columns of indent from which a line alone is a heading
MONTH = r"(?:Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
# The first form that is found counts. A bare number may be no year: "ISSN: 2070-1721".
DATES = (
    re.compile(rf"\b{MONTH}[\s,-]*(?:\d\d?[a-z]*[\s,]+)?((?:19|20)\d\d)\b", re.I),
    re.compile(rf"\b{MONTH}[\s,-]*(?:\d\d?[a-z]*[\s,]+)?(\d\d)\b", re.I),  # in the 1970s
    re.compile(r"\b\d\d?[/-]\d\d?[/-](?:19)?(\d\d)\b"),
)
LISTING = re.compile(
    r"assigned numbers|official.*(?:protocol|standard)|requests? for comments summary"
    r"|summary of \d+|\brfc (?:list|index)|(?:list of|guide to) nwg|bibliography of request"
    r"|comments reference guide|survey of ipv4 addresses",
    re.I | re.S,
)
# Characters that are looked at; true ones have some hundred.
LONGEST_TITLE, LONGEST_ENTRY = 10_000, 1_000
MANY = 160  # documents cited by one that does little else; the longest true survey cites 154


class Parsed(NamedTuple):
    """What is used of a document."""

    year: int
    listing: bool  # a list of other documents: it cites them, and is about none of them
    text: str  # masked, without header and boilerplate
    cited: frozenset[int]  # RFC numbers, its own not among them


def parse(number: int, raw: str) -> Parsed | None:
    """A document from its text, or None where it has no date."""
    header, body = split_header(without_pages(raw))
    year = year_of(header + "\n" + body[:1000])
    if year is None:
        return None
    own = without_shared_sections(body)  # the status of all documents cites the same few
    cited = citations(header + "\n\n" + own) - {number}
    title = body.partition("\n\n")[0]
    listing = LISTING.search(title[:LONGEST_TITLE]) is not None or len(cited) >= MANY
    return Parsed(year, listing, mask(own), frozenset(cited))


def year_of(text: str) -> int | None:
    """The year of the first date with a month, or None."""
    for form in DATES:
        match = form.search(text)
        if match:
            return int(match[1]) % 100 + (2000 if match[1].startswith("20") else 1900)
    return None


def mask(text: str) -> str:
    """The text with ``[RFC]`` in place of every number, or list of numbers, of documents."""
    return MASKED.sub(MASK, text)


def citations(text: str) -> set[int]:
    """The RFC numbers that a text names, or says in its header that it replaces."""
    numbers = [each for series, each in CITED.findall(text) if series[:3].upper() == "RFC"]
    numbers += REPLACES.findall(text)
    return {int(number) for each in numbers for number in re.findall(r"\d+", each)}


def without_pages(raw: str) -> str:
    """One text of all pages: no form feeds, running heads and feet; one empty line at a time."""
    lines = raw.replace("\r\n", "\n").replace("\ufeff", "").replace("\f", "\n").split("\n")
    kept = [line.rstrip() for line in lines if not FOOT.search(line)]
    # The running head begins as the header's second line may: the first lines are no page's head.
    kept = [line for row, line in enumerate(kept) if row < 10 or not RUNNING_HEAD.match(line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n") + "\n"


def split_header(text: str) -> tuple[str, str]:
    """The paragraphs before the title, and the rest."""
    paragraphs = text.split("\n\n")
    first = 0
    while first < len(paragraphs) - 1 and HEADER.search(paragraphs[first]):
        first += 1
    return "\n\n".join(paragraphs[:first]), "\n\n".join(paragraphs[first:])


def without_shared_sections(body: str) -> str:
    """The text without status, copyright and contents: each up to the next heading."""
    lines = body.split("\n")
    kept: list[str] = []
    skipping = False
    for row, line in enumerate(lines):
        starts = row == 0 or not lines[row - 1]  # behind an empty line
        if starts and SHARED.fullmatch(line):
            skipping = True
        elif skipping and starts and _is_heading(lines, row):
            skipping = False
        if not skipping:
            kept.append(line)
    return "\n".join(kept)


def _is_heading(lines: list[str], row: int) -> bool:
    line = lines[row]
    indent = len(line) - len(line.lstrip())
    alone = row + 1 == len(lines) or not lines[row + 1]
    at_margin = indent == 0 or (indent >= CENTRED and alone)
    return bool(line) and at_margin and not ENTRY.search(line[:LONGEST_ENTRY])
