"""What can be said of LaTeX without a compiler."""

from __future__ import annotations

import re


def check_latex(text: str) -> None:
    """Braces, dollars and environments balance; every row has as many cells as the head."""
    bare = re.sub(r"\\[{}$&#_%]", "", re.sub(r"^%.*$", "", text, flags=re.M))
    opened = re.findall(r"\\begin\{(\w+)\}", bare)
    assert sorted(opened) == sorted(re.findall(r"\\end\{(\w+)\}", bare))
    assert bare.count("$") % 2 == 0
    depth = 0
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    for table in re.findall(r"\\toprule\n(.*?)\\bottomrule", bare, flags=re.S):
        lines = [line for line in table.splitlines() if line.endswith(r"\\")]
        widths = {line.count("&") for line in lines if "multicolumn" not in line}
        assert len(widths) == 1
