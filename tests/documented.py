"""The code that the documentation shows, to be run by tests as a user would copy it."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def blocks(file: str, heading: str, language: str) -> list[str]:
    """The code of ``language`` below a heading of a Markdown file, block by block."""
    _, _, below = (ROOT / file).read_text().partition(f"\n## {heading}\n")
    section = re.split(r"^## ", below, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    assert found, f"{file} has no {language} below '{heading}'"
    return found
