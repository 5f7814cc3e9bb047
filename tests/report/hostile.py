"""Reports to try every format on: one with every kind of cell, one whose names attack."""

from __future__ import annotations

from pathlib import Path

from chela.records.collect import Collection, Unread, parse
from chela.report.frame import Report
from chela.report.published import published
from chela.report.table import build
from tests.records.samples import found, run, sweep

HOSTILE = (
    "<script>alert('1')</script>",
    r'\input{x} % $a_b^c$ & #1 ~ {"}` [2] *3* |4| --- é ★ 中 Ω',
    'comma, "quote",\nnew line',
    "esc \x1b[2J\x9b bell \a\r line \x85 back \u202e",
    "=1+1",
)


def whole_report() -> Report:
    """Every kind of cell, note and trouble, beside the literature."""
    runs = tuple(parse(each, Path("outputs") / each["run_id"]) for each in sweep())
    return build(Collection(runs, (Unread(Path("a_b/record.json"), "50% of it"),), ()), published())


def hostile() -> Report:
    runs = [run(text, identity=f"{n}" * 8) for n, text in enumerate(HOSTILE)]
    runs += [
        run("b", status="failed", accuracy=None, error=text, seed=n)
        for n, text in enumerate(HOSTILE)
    ]
    runs += [
        run("c", "image", stand_in=text, identity=f"{n}", command=text)
        for n, text in enumerate(HOSTILE)
    ]
    return build(found(*runs), published())
