"""The report as LaTeX tables (booktabs), to be ``\\input`` into a paper."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from chela.records.format import percent
from chela.report.cells import Cell
from chela.report.costs import HEAD, costs, texts
from chela.report.costs import LEGEND as COST_LEGEND
from chela.report.report import Report, Row

NEEDS = r"% needs \usepackage{booktabs,graphicx}"
LEGEND = (
    "Bold: best, underlined: second best of our own rows. $\\star$ best, $\\circ$ second best of "
    "all rows, the published ones included. ---: not run, or no number in the source."
)
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "-": "{-}",  # two would become one long dash
    "[": "{[}",  # at the start of a row it would be an argument of the line break before
    "*": "{*}",  # so would this
    "±": r"$\pm$",
    "×": r"$\times$",
    "—": "---",
    "…": r"\ldots{}",
    "★": r"$\star$",
    "☆": r"$\circ$",
}
LAST = "\u0180"  # the end of the blocks of Latin letters that pdflatex knows by itself
OGONEK = "\u0328"  # the one accent that the default encoding lacks
# Tables wider than the page shrink to it; the others keep the document's size.
FIT = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"


def latex(report: Report) -> str:
    """A table of accuracies and one of costs, each a ``table`` environment with its notes."""
    width = len(report.columns) + 1
    head = ["Model", *(escape(c.title) + _marks(c.marks) for c in report.columns)]
    accuracy = [
        *map(_row, report.published),
        r"\midrule",
        rf"\multicolumn{{{width}}}{{l}}{{\emph{{Measured here}}}} \\",
        *map(_row, report.ours),
    ]
    lists = [
        LEGEND,
        *map(escape, report.remarks),
        *(f"{_marks([mark])} {escape(text)}." for mark, text in report.notes),
        *(escape(f"{text}.") for text in report.unfinished),
        *(escape(f"Unreadable: {each.file}: {each.reason}.") for each in report.unread),
        *(f"{escape(f'[{n}] {source}')}." for n, source in enumerate(report.sources, start=1)),
    ]
    cost = [_line(escape(text) for text in texts(line)) for line in costs(report)]
    return "\n".join(
        [
            NEEDS,
            *_table("l" + "r" * len(report.columns), head, accuracy, "lra", " ".join(lists)),
            *_table("ll" + "r" * 5 + "l", HEAD, cost, "cost", escape(COST_LEGEND)),
            "",
        ]
    )


def escape(text: str) -> str:
    """``text`` so that LaTeX prints it; letters that its usual fonts lack become their number."""
    return "".join(SPECIAL.get(letter) or _plain(letter) for letter in " ".join(text.split()))


def _plain(letter: str) -> str:
    # every font has the ASCII letters with an accent over them; of other letters none can be sure
    parts = unicodedata.normalize("NFD", letter)
    known = letter < LAST and parts[0].isascii() and OGONEK not in parts
    return letter if known and letter.isprintable() else f"U+{ord(letter):04X}"


def _row(row: Row) -> str:
    source = f" [{row.source}]" if row.source else ""
    return _line([escape(row.name + source) + _marks(row.marks), *map(_cell, row.cells)])


def _cell(cell: Cell) -> str:
    if cell.mean is None:
        return ("---" if cell.state == "missing" else rf"\emph{{{escape(cell.state)}}}") + _marks(
            cell.marks
        )
    mean = percent(cell.mean)
    if cell.rank_ours:
        mean = (r"\textbf{%s}" if cell.rank_ours == 1 else r"\underline{%s}") % mean
    spread = "" if cell.std is None else rf" {{\scriptsize$\pm$\,{percent(cell.std)}}}"
    seeds = rf" {{\scriptsize({cell.seeds})}}" if cell.seeds else ""
    return f"{mean}{spread}{seeds}{_star(cell)}{_marks(cell.marks)}"


def _star(cell: Cell) -> str:
    return ["", r"$^{\star}$", r"$^{\circ}$"][cell.rank_all]


def _marks(marks: Iterable[str]) -> str:
    joined = ",".join(marks)
    return rf"\textsuperscript{{{joined}}}" if joined else ""


def _table(form: str, head: Sequence[str], body: Iterable[str], name: str, notes: str) -> list[str]:
    return [
        r"\begin{table}",
        r"\centering",
        FIT,
        rf"\begin{{tabular}}{{{form}}}",
        r"\toprule",
        _line(head),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        rf"\label{{tab:{name}}}",
        "",
        rf"\smallskip\begin{{minipage}}{{\textwidth}}\footnotesize {notes}\end{{minipage}}",
        r"\end{table}",
    ]


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
