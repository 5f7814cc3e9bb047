"""Every format says the same, and nothing in a record can break it."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chela.records.format import duration, human, size
from chela.report.frame import COUNTS, FIELDS, FLOATS, Report
from chela.report.picture import picture
from chela.report.published import published
from chela.report.render import in_markdown, latex, markdown, page, table_csv
from chela.report.table import build
from tasks.screen import visible
from tests.documented import blocks
from tests.records.samples import found, run
from tests.report.hostile import HOSTILE, hostile, whole_report
from tests.report.latex_form import check_latex


@pytest.fixture(scope="module")
def whole() -> Report:
    return whole_report()


class Document(HTMLParser):
    """The tags, their nesting, and the texts."""

    VOID = ("meta", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text) -> None:
        self.texts.append(text)

    def all(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name))]


# --- what is shown ------------------------------------------------------------------------------


def test_markdown_marks_ranks_states_and_notes(whole) -> None:
    text = markdown(whole)
    table = [line for line in text.partition("**Bold**")[0].splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in table} == {len(whole.columns)}
    rows = {line.split(" | ")[0].strip("| "): line for line in table}
    assert "| **62.30** ± 0.30 (3)☆ | <ins>64.60</ins> ± 0.60 (3) |" in rows["chela"]
    assert "| *running* |" in rows["linear"]
    assert "| *failed* |" in rows["transformer"]
    assert re.search(r"\*\*91\.00\*\* \(1\)★<sup>\w</sup>", rows["mega"])
    for mark in whole.marks.values():
        assert f"<sup>{mark}</sup> " in text
    assert "NonFinite: the loss is nan" in text
    assert "a\\_b/record.json: 50% of it" in text


def test_csv_has_a_line_per_cell(whole) -> None:
    lines = list(csv.DictReader(io.StringIO(table_csv(whole))))
    assert len(lines) == len(whole.rows) * len(whole.columns) + 1
    assert tuple(lines[0]) == FIELDS
    (chela,) = [each for each in lines if (each["model"], each["column"]) == ("chela", "Text")]
    assert float(chela["value"]) == pytest.approx(64.6)
    assert float(chela["std"]) == pytest.approx(0.6)
    assert (chela["n_seeds"], chela["seeds"], chela["test_n"]) == ("3", "0 1 2", "25000")
    assert (chela["rank_ours"], chela["rank_all"], chela["state"]) == ("2", "", "measured")
    (s4d,) = [each for each in lines if (each["model"], each["column"]) == ("s4d", "Image")]
    assert s4d["seeds"] == "0 1:interrupted"
    stand_in = [each for each in lines if each["stand_in"] == "True"]
    assert {each["column"] for each in stand_in} == {"cifar10-jpeg"}
    (mega,) = [each for each in lines if each["protocol"] == "lra"]
    assert "protocol lra" in mega["notes"]
    (broken,) = [each for each in lines if each["origin"] == "unreadable"]
    assert (broken["folders"], broken["error"]) == ("a_b/record.json", "50% of it")
    (mega,) = [e for e in lines if (e["model"], e["column"]) == ("Mega", "Path-X")]
    assert (mega["origin"], mega["value"]) == ("published", "97.98")
    assert mega["source"] == "Mega (Ma et al. 2023) Table 2"


def test_what_should_be_a_number_in_the_csv_is_one_or_empty(whole) -> None:
    """A word among them, and pandas takes the column for text."""
    lines = list(csv.DictReader(io.StringIO(table_csv(whole))))
    for column in (*FLOATS, *COUNTS):
        values = [line[column] for line in lines]
        assert "" in values
        assert any(map(float, filter(None, values)))  # each of them is one, else it raises
    states = {line["state"] for line in lines if not line["value"]}
    assert states == {"missing", "failed", "running", ""}  # none: a file that could not be read
    assert all(line["value"] == "" for line in lines if line["state"] in states)


def test_the_guide_reads_the_csv_with_pandas(whole, tmp_path, monkeypatch) -> None:
    file = tmp_path / "outputs" / "report" / "report.csv"
    file.parent.mkdir(parents=True)
    file.write_text(table_csv(whole))
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("docs/report.md", "How to read it", "python")
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["table"]["value"].dtype == float
    assert names["numbers"]["value"].notna().all()
    assert set(names["numbers"]["state"]) == {"measured", "published", "computed"}
    runs = names["runs"]
    assert set(runs["state"]) == {"measured", "computed", "failed", "running"}
    ours = whole.cells[whole.cells["origin"] == "measured"]
    assert len(runs) == (ours["state"] != "missing").sum()
    assert set(runs["n_seeds"].dropna()) == {1, 2, 3}


def test_the_page_has_real_tables_and_every_link_has_its_target(whole) -> None:
    document = Document(page(whole))
    scopes = [attributes.get("scope") for tag, attributes in document.tags if tag == "th"]
    assert set(scopes) == {"col", "row"}
    targets = set(document.all("id"))
    links = document.all("href")
    assert len(links) > 50
    assert {link.removeprefix("#") for link in links} <= targets
    assert len(document.all("id")) == len(targets)
    runs = [runs for runs in whole.cells["runs"] if runs]
    assert sum(link.startswith("#runs-") for link in links) == len(runs)
    boxes = sum(tag == "details" for tag, _ in document.tags)
    assert boxes == len(runs) + sum(map(len, runs)) + 1  # that of the published rows


def test_the_page_needs_nothing_from_outside(whole) -> None:
    text = page(whole)
    document = Document(text)
    assert not {tag for tag, _ in document.tags} & {"script", "link", "img", "iframe", "object"}
    assert not document.all("src")
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in re.sub(r'<meta http-equiv="[^"]+"', "", text)


def test_the_page_tells_all_of_a_run(whole) -> None:
    texts = set(Document(page(whole)).texts)
    for part in (
        "train.py task=text model=chela seed=0",
        "python 3.11.7, torch 2.13.0",
        "model.dim",
        "c0ffee" * 6 + "abcd",
        "NVIDIA H200",
        "Seed 2",
        "NonFinite: the loss is nan",
    ):
        assert part in texts, part


def test_the_picture_is_the_same_each_time() -> None:
    report = build(found(run(), run("s4d", protocol="lra")), published())
    first = picture(report)
    assert first.startswith(b"\x89PNG")
    assert first == picture(report)


def test_a_report_without_a_finished_run_has_a_picture_too() -> None:
    report = build(found(run(status="running", accuracy=None)))
    assert picture(report).startswith(b"\x89PNG")


# --- what a record cannot do --------------------------------------------------------------------


def test_hostile_names_are_only_texts_on_the_page() -> None:
    document = Document(page(hostile()))
    assert "script" not in {tag for tag, _ in document.tags}
    assert not [name for _, attributes in document.tags for name in attributes if name[:2] == "on"]
    for text in HOSTILE:
        assert visible(text) in document.texts


@pytest.mark.parametrize("form", [page, latex, markdown, table_csv])
def test_control_characters_are_shown_and_not_sent(form) -> None:
    """A report is printed to terminals as well."""
    text = form(hostile())
    assert visible(text) == text
    for shown in ("x1b", "x9b", "x07", "u202e", "x85"):
        assert shown in text


def test_no_text_of_the_csv_is_a_formula() -> None:
    """A spreadsheet would compute it: such a text has an apostrophe in front."""
    report = hostile()
    text = table_csv(report)
    lines = list(csv.DictReader(io.StringIO(text)))
    *others, formula = map(visible, HOSTILE)
    for name in ("model", "column"):
        assert {*others, f"'{formula}"} <= {line[name] for line in lines}
    assert {len(line) for line in lines} == {len(FIELDS)}
    begins = {line[name][:1] for line in lines for name in FIELDS}
    assert not begins & set("=+-@\t\n")


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t=", " =", "\n", "＝", "＠"])
def test_what_may_begin_a_formula_is_quoted(begin) -> None:
    text = table_csv(build(found(run(f"{begin}1"))))
    (line,) = csv.DictReader(io.StringIO(text, newline=""))
    assert line["model"] == f"'{begin}1"


@pytest.mark.filterwarnings("ignore:Glyph")  # a letter that the font lacks is drawn as a box
def test_a_hostile_name_has_a_picture() -> None:
    report = build(found(*(run(text) for text in ("$x$", r"\frac{", "中", "a\nb", "^_"))))
    assert picture(report).startswith(b"\x89PNG")


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=30))
def test_any_text_leaves_every_format_whole(text) -> None:
    report = build(found(run(text, error=text, status="failed", accuracy=None), run(text)))
    lines = list(csv.DictReader(io.StringIO(table_csv(report), newline="")))
    assert lines[0]["model"].removeprefix("'") == visible(text).removeprefix("'")
    Document(page(report))
    table = markdown(report).partition("## Cost")[0].splitlines()
    lines = [re.sub(r"\\.", "", line) for line in table if line.startswith("| ")]
    assert {line.count("|") for line in lines} == {len(report.columns) + 2}
    check_latex(latex(report))


@given(st.text())
def test_escaped_markdown_is_one_line_without_bare_syntax(text) -> None:
    made = in_markdown(text)
    assert not set(re.sub(r"\\.", "", made)) & set("\\`*_[]|<>&$#")
    assert made.splitlines() in ([made], [])


# --- figures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999.9, "1 kB"), (733_687_808, "734 MB"), (80e9, "80 GB"), (2e12, "2 TB")],
)
def test_sizes(value, text) -> None:
    assert size(value) == text


@pytest.mark.parametrize(("value", "text"), [(999_999, "1M"), (1e6, "1M"), (5e12, "5T")])
def test_the_unit_fits_the_rounded_number(value, text) -> None:
    assert human(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(59.4, "59 s"), (59.6, "1 min 00 s"), (3725, "1 h 02 min")]
)
def test_durations(value, text) -> None:
    assert duration(value) == text
