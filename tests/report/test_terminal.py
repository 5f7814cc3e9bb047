"""The table in a terminal: whole where it fits, else in parts that say the same."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from chela.report.frame import Report
from chela.report.published import published
from chela.report.table import build
from chela.report.terminal import terminal_tables, whole_width
from tests.records.samples import SIZES, found, run
from tests.report.hostile import whole_report

NUMBER = re.compile(r"\d\d\.\d\d(?: ± \d+\.\d\d)?(?: \(\d\))?[★☆]?")


@pytest.fixture(scope="module")
def whole() -> Report:
    return whole_report()


def shown(report: Report, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    for table in terminal_tables(report, width):
        console.print(table)
    return console.export_text()


def test_a_wide_terminal_has_one_table_with_every_number(whole) -> None:
    width = whole_width(whole)
    assert len(terminal_tables(whole, width)) == 1
    text = shown(whole, width)
    for part in ("62.30 ± 0.30 (3)☆", "running", "failed", "<script>alert(1)</script>", "cifar10"):
        assert part in text
    heads = [line for line in text.splitlines() if "model" in line]
    assert len(heads) == 1
    assert {len(line) for line in text.splitlines()} <= {width}


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_narrow_one_has_several_with_the_same_numbers(whole, width: int) -> None:
    text = shown(whole, width)
    assert len(terminal_tables(whole, width)) > 1
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    at_once = shown(whole, whole_width(whole))
    assert sorted(NUMBER.findall(text)) == sorted(NUMBER.findall(at_once))
    columns = [cell.strip() for cell in re.findall(r"[^┃\n]+(?=┃)", text) if cell.strip()]
    titles = [
        " ".join([column.title, *(whole.marks[note] for note in column.notes)])
        for column in whole.columns
    ]
    assert [cell for cell in columns if cell != "model"] == titles
    assert text.count("Test accuracy (%)") == text.count("bold best") == 1


def test_names_are_folded_before_a_table_is_parted() -> None:
    runs = [run(choices={"kernel": letter * 30}, identity=letter) for letter in "ab"]
    report = build(found(*runs), published())
    (table,) = terminal_tables(report, whole_width(report) - 10)
    assert f"kernel={'a' * 30}" in shown(report, whole_width(report))
    assert f"kernel={'a' * 30}" not in shown(report, whole_width(report) - 10)
    assert table.row_count == len(report.rows)


def test_a_part_has_no_rows_without_anything_in_it() -> None:
    more = [run("mega", task) for task in SIZES]
    report = build(found(run(), run("s4d", "pathx", status="failed", accuracy=None), *more))
    tables = shown(report, 60).split("Test accuracy")[1].split("└")[:-1]
    with_model = {name: [part for part in tables if name in part] for name in ("chela", "s4d")}
    assert len(tables) > 2
    assert len(with_model["chela"]) == 1
    assert "ListOps" in with_model["chela"][0]
    assert len(with_model["s4d"]) == 1
    assert "failed" in with_model["s4d"][0]
