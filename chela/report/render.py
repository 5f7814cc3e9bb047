"""The report in every form: page, LaTeX and Markdown from templates, CSV, and the files together.

``shown`` is the one place where a cell becomes text.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from chela.records.files import atomic_file
from chela.records.format import duration, human, size
from chela.report.details import configuration, facts
from chela.report.figures import learning_curves, run_curves
from chela.report.frame import COUNTS, ERRORS, FIELDS, FLOATS, Report, decimals, typed
from chela.report.picture import picture
from tasks.screen import visible

COSTS = ("Model", "Task", "Parameters", "Tokens/s", "Peak memory", "Steps", "Time", "Hardware")
COST_LEGEND = (
    "Tokens/s in training, padding not counted. Time of one run, with validation and saving. Peak "
    "memory: of GPU allocations on a GPU, of the whole process on a CPU."
)
LEGEND = (
    "{}: best, {}: second best of our own rows, each with all that lies within "
    f"{ERRORS} standard errors of it; nothing, where that is so of all. ★ best, ☆ second best of "
    "all rows, the published ones included. — : not run, or no number in the source."
)
# Columns beside each other, and up to which width of the page (in rem) more of them are too many.
BLOCKS = ((2, 30), (3, 40), (4, 52), (5, 64), (6, 84))
LATEX = {
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
    "★": r"$^{\star}$",
    "☆": r"$^{\circ}$",
}
LAST = "\u0180"  # the end of the blocks of Latin letters that pdflatex knows by itself
OGONEK = "\u0328"  # the one accent that the default encoding lacks
MARKDOWN = re.compile(r"([\\`*_\[\]#+|<>~&$@])")
# What a spreadsheet takes for a formula, behind blanks too, and in the letters of East Asia.
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\n]")


class Shown(NamedTuple):
    """A cell as text."""

    main: str  # the number, or the state, or a dash
    beside: str  # "± 0.30 (3)": deviation and number of seeds, as far as there are any
    star: str  # ★ the best, ☆ the second best of all
    kind: str  # how the main part is set: "best", "second" of ours, "state", or as it is


def shown(cell: Any) -> Shown:
    """The text of a cell of ``Report.lines``: as many decimals as its unit has in print."""
    if pd.isna(cell.value):
        missing = cell.state == "missing"
        return Shown("—" if missing else cell.state, "", "", "" if missing else "state")
    digits = decimals(cell.unit)
    spread = [] if pd.isna(cell.std) else [f"± {cell.std:.{digits}f}"]
    seeds = [f"({cell.n_seeds})"] if cell.n_seeds else []
    return Shown(
        f"{cell.value:.{digits}f}",
        " ".join([*spread, *seeds]),
        ["", "★", "☆"][cell.rank_all],
        ["", "best", "second"][cell.rank_ours],
    )


def page(report: Report) -> str:
    """One HTML page that needs nothing else: no script, no font, no picture from outside."""
    return _filled("page.html", report, escape)


def latex(report: Report) -> str:
    """LaTeX tables (booktabs) of values and of costs, to be ``\\input`` into a paper."""
    return _filled("tables.tex", report, in_latex)


def markdown(report: Report) -> str:
    """Markdown, as GitHub shows it."""
    return _filled("report.md", report, in_markdown)


def table_csv(report: Report) -> str:
    """A line per cell under ``FIELDS``, for programs; what is not known is left empty.

    No text in it is a formula to a spreadsheet: one that could be begins with an apostrophe. Nor
    has one a control character.
    """
    notes = [
        "; ".join([*row.notes, *column.notes, *cell.notes])
        for row, cells in [*report.ours, *report.published]
        for column, cell in zip(report.columns, cells, strict=True)
    ]
    unread = [
        {"origin": "unreadable", "folders": str(each.file), "error": each.reason}
        for each in report.unread
    ]
    frame = pd.concat([report.cells.assign(notes=notes), typed(unread)])[list(FIELDS)].round(6)
    counts = frame[["n_seeds", "rank_ours", "rank_all"]]
    frame[counts.columns] = counts.where(counts != 0, None)
    texts = [field for field in FIELDS if field not in (*FLOATS, *COUNTS)]
    frame[texts] = frame[texts].map(_in_csv)
    return str(frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC))


def write(report: Report, folder: Path) -> list[Path]:
    """Write ``report.{md,tex,csv,png,html}`` into ``folder``, each whole or not at all.

    Returns:
        The files, in this order.
    """
    contents = {
        "md": markdown(report).encode(),
        "tex": latex(report).encode(),
        "csv": table_csv(report).encode(),
        "png": picture(report),
        "html": page(report).encode(),
    }
    for suffix, content in contents.items():
        with atomic_file(folder / f"report.{suffix}") as file:
            file.write(content)
    return [folder / f"report.{suffix}" for suffix in contents]


def costs(report: Report) -> list[list[str]]:
    """What each cell of ours cost, under ``COSTS``, with a dash for what no record says."""
    return [
        [
            row.name,
            cell.column,
            _or_dash(cell.parameters, "{:,}".format),
            _or_dash(cell.tokens_per_second, human),
            _or_dash(cell.peak_memory_bytes, size),
            _or_dash(cell.steps, "{:,}".format),
            _or_dash(cell.seconds, duration),
            cell.hardware or "—",
        ]
        for row, cells in report.ours
        for cell in cells
        if cell.runs
    ]


def in_latex(text: str) -> str:
    """``text`` so that LaTeX prints it; letters that its usual fonts lack become their number."""
    return "".join(LATEX.get(letter) or _plain(letter) for letter in " ".join(text.split()))


def in_markdown(text: str) -> str:
    """``text`` so that Markdown shows it as it is, on one line."""
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _filled(name: str, report: Report, escaped: Callable[[str], str]) -> str:
    """A template with the report in it."""
    return _template(name, escaped).render(
        report=report,
        costs=costs(report),
        troubles=[
            ("Runs without a number", report.unfinished),
            ("Records that cannot be read", [f"{e.file}: {e.reason}" for e in report.unread]),
        ],
        marks=lambda texts: [report.marks[text] for text in texts],
    )


@cache
def _template(name: str, escaped: Callable[[str], str]) -> Template:
    """A template that escapes every text that it prints, and shows its control characters."""

    def printed(value: Any) -> Markup:
        text = visible(str(value))
        return Markup(text if isinstance(value, Markup) else escaped(text))

    environment = Environment(
        loader=PackageLoader("chela.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,  # so that what is escaped is known by its type
        finalize=printed,
    )
    environment.globals |= {
        "COSTS": COSTS,
        "COST_LEGEND": COST_LEGEND,
        "BLOCKS": BLOCKS,
        "LEGEND": LEGEND,
        "configuration": configuration,
        "facts": facts,
        "learning_curves": learning_curves,
        "run_curves": run_curves,
        "shown": shown,
    }
    return environment.get_template(name)


def _plain(letter: str) -> str:
    # every font has the ASCII letters with an accent over them; of other letters none can be sure
    parts = unicodedata.normalize("NFD", letter)
    known = letter < LAST and parts[0].isascii() and OGONEK not in parts
    return letter if known else f"U+{ord(letter):04X}"


def _in_csv(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if FORMULA.match(text) else text


def _or_dash(value: Any, form: Callable[[Any], str]) -> str:
    return "—" if pd.isna(value) else form(value)
