"""LaTeX: nothing in a record is a command, every table is whole, and a compiler takes it."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chela.report.render import in_latex, latex
from chela.report.table import build
from tests.records.samples import found, run
from tests.report.hostile import hostile, whole_report
from tests.report.latex_form import check_latex


@given(st.text())
def test_escaped_latex_has_no_active_letter_left(text) -> None:
    made = in_latex(text)
    assert made.count("\n") == 0
    plain = re.sub(
        r"---|\\(text\w+\{\}|ldots\{\}|[{}$&#_%])"
        r"|\$\\(pm|times)\$|\$\^\{\\(star|circ)\}\$|\{[-[*]\}",
        "",
        made,
    )
    assert not set(plain) & set('\\{}$&#_%^~<>|"`[*-★±')
    accents = unicodedata.normalize("NFD", plain)
    assert all(each.isascii() or unicodedata.combining(each) for each in accents)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 50%", r"a\_b \& 50\%"),
        ("\\{x}$^~", r"\textbackslash{}\{x\}\$\textasciicircum{}\textasciitilde{}"),
        ("[bold] *", "{[}bold] {*}"),
        ("a--b", "a{-}{-}b"),
        ("é ą Ω 中", "é U+0105 U+03A9 U+4E2D"),
        ("two\n lines", "two lines"),
    ],
)
def test_latex_escapes(text, expected) -> None:
    assert in_latex(text) == expected


def test_latex_is_balanced() -> None:
    check_latex(latex(whole_report()))
    check_latex(latex(hostile()))


COMPILERS = {
    "pdflatex": ["-interaction=nonstopmode", "-halt-on-error"],
    "tectonic": ["--only-cached"],
}


@pytest.mark.compiler
@pytest.mark.parametrize("compiler", COMPILERS)
def test_latex_compiles(compiler, tmp_path) -> None:
    program = shutil.which(compiler)
    if program is None:
        pytest.skip(f"there is no {compiler} here")
    letters = build(found(run("".join(map(chr, range(0x20, 0x250))))))
    for name, report in (("whole", whole_report()), ("hostile", hostile()), ("letters", letters)):
        (tmp_path / f"{name}-table.tex").write_text(latex(report))
        (tmp_path / f"{name}.tex").write_text(
            "\\documentclass{article}\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
            f"\\input{{{name}-table.tex}}\n\\end{{document}}\n"
        )
        done = subprocess.run(
            [program, *COMPILERS[compiler], f"{name}.tex"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            errors="replace",
        )
        assert done.returncode == 0, done.stdout[-2000:]
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "Missing character" not in (tmp_path / f"{name}.log").read_text(errors="replace")
