"""A made-up corpus of RFCs in its forms: packed, and as the IETF publishes them."""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path

WORDS = ("packet", "router", "mail", "header", "octet", "zone", "query", "socket", "stream", "host")
HEADER = "citing_id\tcited_id\twhere\tlead4k\n"


def made(documents: int = 60, seed: int = 0) -> tuple[list[dict[str, object]], list[list[int]]]:
    """Rows of ``documents.jsonl``, and [citing, cited]; each cites up to five earlier ones."""
    random.seed(seed)
    rows: list[dict[str, object]] = []
    links: list[list[int]] = []
    for number in range(1, documents + 1):
        body = " ".join(random.choice(WORDS) for _ in range(random.randint(20, 60)))
        legal = "Copyright Notice\n\n   All of it.\n\n"
        rows.append(
            {
                "id": number,
                "title": f"Title {number}",
                "year": 1980 + number // 8,
                "n_chars": 9000,
                "listing": number % 20 == 0,
                "text": f"RFC {number}\n\n{body}",
                "text_masked": legal + body,
                "boiler": [[0, len(legal), "legal"]],
            }
        )
        earlier = range(1, number)
        cited = random.sample(earlier, min(len(earlier), random.randint(0, 5)))
        links += [[number, each] for each in sorted(cited)]
    return rows, links


def write_packed(folder: Path, rows: object, links: object, compress: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "documents.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "citations.tsv": HEADER + "".join(f"{a}\t{b}\tt\t0\n" for a, b in links),
    }
    for name, text in texts.items():
        if compress:
            (folder / f"{name}.xz").write_bytes(lzma.compress(text.encode()))
        else:
            (folder / name).write_text(text)
    return folder


def official(number: int, title: str, year: int, body: str, more: str = "") -> str:
    """The text of an RFC with two pages, as the IETF lays them out."""
    return f"""



Network Working Group                                         J. Doe
Request for Comments: {number:<5}                                   ISI
{more}Category: Experimental                                  March {year}


                    {title}

Status of this Memo

   This memo defines an Experimental Protocol.  See RFC 2026.

Copyright Notice

   Copyright (C) The Internet Society ({year}).

Table of Contents

   1. Introduction ................................................ 1
   2. The rest .................................................... 2

1.  Introduction

   {body}



Doe                           Experimental                      [Page 1]
\f
RFC {number}                     {title}                  March {year}


   More of the introduction.

2.  The rest

   It ends here.

Doe                           Experimental                      [Page 2]
"""
