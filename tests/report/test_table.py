"""The table against formulas written out again, cell by cell."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chela.report.cells import Cell, summary
from chela.report.costs import costs, texts
from chela.report.lra import LRA, departure
from chela.report.published import published
from chela.report.ranks import ranked
from chela.report.report import Column, Notes, Report, Row, letters
from chela.report.table import build
from tests.records.samples import SIZES, cell, found, notes, run


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_mean_and_deviation_are_the_textbook_ones(accuracies) -> None:
    made = summary([run(seed=seed, accuracy=a) for seed, a in enumerate(accuracies)])
    n = len(accuracies)
    mean = sum(100 * a for a in accuracies) / n
    assert made.seeds == n
    assert made.mean == pytest.approx(mean)
    if n == 1:
        assert made.std is None
    else:
        naive = math.sqrt(sum((100 * a - mean) ** 2 for a in accuracies) / (n - 1))
        assert made.std == pytest.approx(naive, abs=1e-9)


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        ([], "missing"),
        (["running"], "running"),
        (["running", "interrupted"], "interrupted"),
        (["interrupted", "failed", "running"], "failed"),
    ],
)
def test_without_a_number_a_cell_says_why(statuses, state) -> None:
    made = summary([run(seed=n, status=each, accuracy=None) for n, each in enumerate(statuses)])
    assert (made.mean, made.std, made.seeds, made.state) == (None, None, 0, state)


def test_seeds_without_a_number_are_said_and_not_counted() -> None:
    runs = [run(seed=0, accuracy=0.5), run(seed=1, accuracy=None, status="failed")]
    report = build(found(*runs), [])
    made = cell(report, "chela", "ListOps")
    assert (made.mean, made.seeds) == (50, 1)
    assert notes(report, made.marks) == ["chela on ListOps: seed 1 failed; not in the mean"]
    (sentence,) = report.unfinished
    assert "chela on ListOps, seed 1: failed: NonFinite: the loss is nan (outputs/" in sentence


def test_an_average_has_the_marks_of_its_cells() -> None:
    runs = [run(task=task, protocol="lra" if task == "text" else "heldout") for task in SIZES]
    report = build(found(*runs), [])
    mark = cell(report, "chela", "Text").marks
    assert len(mark) == 1
    assert cell(report, "chela", "Avg. of 5").marks == mark
    assert cell(report, "chela", "Avg. of 6").marks == mark


def test_a_long_error_is_cut_below_the_table() -> None:
    report = build(found(run(status="failed", accuracy=None, error="x" * 400 + "\nsecond")), [])
    assert f": {'x' * 300}… (" in report.unfinished[0]


def test_a_stand_in_has_its_own_column_and_name() -> None:
    runs = [
        run(task="image", accuracy=0.9),
        run(task="image", stand_in="cifar10-jpeg", identity="x"),
    ]
    report = build(found(*runs), published())
    assert [column.title for column in report.columns][-1] == "cifar10-jpeg"
    assert cell(report, "chela", "Image").mean == 90
    made = cell(report, "chela", "cifar10-jpeg")
    assert made.mean == 50
    assert made.rank_all == 0
    assert "stand-in for the data of Image" in notes(report, report.columns[-1].marks)[0]


@pytest.mark.parametrize("name", ["image", "Image", "official", "generated", "Path-X"])
def test_a_stand_in_never_bears_the_name_of_the_real_data(name) -> None:
    report = build(found(run(task="image", stand_in=name)), [])
    assert [column.title for column in report.columns][-1] == f"Image ({name})"


def test_smaller_data_are_another_column_out_of_average_and_comparison() -> None:
    runs = [run(task=task, accuracy=0.5, sizes=(10, 5, 5, 10)) for task in SIZES]
    whole = run("s4d", accuracy=0.4)
    report = build(found(*runs, whole), published())
    row, _ = report.ours
    assert [c.mean for c in row.cells[:8]] == [None] * 8
    assert [c.mean for c in row.cells[8:]] == [50] * 6
    assert all(
        column.title.startswith(LRA[column.key.partition(":")[0]].title + " (")
        for column in report.columns[8:]
    )
    assert not any(c.rank_all for c in row.cells)


def test_beside_other_data_alone_no_published_row_stands() -> None:
    """Twenty rows of them and eight empty columns would hide one's own two numbers."""
    runs = [run(model, accuracy=0.5, sizes=(10, 5, 5, 10)) for model in ("chela", "s4d")]
    report = build(found(*runs), published())
    assert [column.kind for column in report.columns] == ["other"]
    assert [row.name for row in report.ours] == ["chela", "s4d"]
    assert report.published == report.sources == ()
    assert not any("ublished values stand" in remark for remark in report.remarks)
    assert any("None of these data are the benchmark's" in remark for remark in report.remarks)


@pytest.mark.parametrize("task", SIZES)
def test_the_benchmarks_sizes_are_no_departure(task) -> None:
    assert departure(run(task=task)) is None
    train, val, test, longest = SIZES[task]
    assert "samples" in str(departure(run(task=task, sizes=(train - 1, val, test, longest))))
    assert "samples" in str(departure(run(task=task, sizes=(train, val, test - 1, longest))))
    assert departure(run(task=task, sizes=(train + val, 0, test, longest))) is None
    short = departure(run(task=task, sizes=(train, val, test, 40)))
    assert (short is not None) == (task in ("listops", "pathx"))


def test_other_tasks_come_after_the_six() -> None:
    report = build(found(run(), run(task="sc10"), run(task="adding")), published())
    titles = [column.title for column in report.columns]
    assert titles[:6] == ["ListOps", "Text", "Retrieval", "Image", "Pathfinder", "Path-X"]
    assert titles[6:] == ["Avg. of 5", "Avg. of 6", "adding", "sc10"]


def with_pathx(status: str | None) -> Report:
    runs = [run(task=task, accuracy=0.6 + 0.01 * n) for n, task in enumerate(SIZES)][:5]
    if status:
        runs.append(
            run(task="pathx", accuracy=0.9 if status == "finished" else None, status=status)
        )
    return build(found(*runs), [])


@pytest.mark.parametrize(
    ("status", "six"),
    [
        ("finished", (60 + 61 + 62 + 63 + 64 + 90) / 6),
        ("failed", (60 + 61 + 62 + 63 + 64 + 50) / 6),
        (None, (60 + 61 + 62 + 63 + 64 + 50) / 6),
        ("running", None),
        ("interrupted", None),
    ],
)
def test_both_averages(status, six) -> None:
    report = with_pathx(status)
    assert cell(report, "chela", "Avg. of 5").mean == pytest.approx(62)
    made = cell(report, "chela", "Avg. of 6")
    assert made.mean == (None if six is None else pytest.approx(six))
    said = notes(report, made.marks)
    assert (["counts as 50" in text for text in said] == [True]) == (status in ("failed", None))


@pytest.mark.parametrize("absent", range(5))
def test_no_average_where_one_of_the_five_is_missing(absent) -> None:
    tasks = [task for n, task in enumerate(SIZES) if n != absent]
    report = build(found(*(run(task=task) for task in tasks)), [])
    assert cell(report, "chela", "Avg. of 5").mean is None
    assert cell(report, "chela", "Avg. of 6").mean is None


def test_the_protocol_is_marked_where_it_is_not_the_usual_one() -> None:
    report = build(found(run(task="text", protocol="lra"), run(task="image")), [])
    marked = cell(report, "chela", "Text")
    assert notes(report, marked.marks) == [
        "protocol lra: weights selected by highest accuracy on the test split itself"
    ]
    assert cell(report, "chela", "Image").marks == ()
    assert any(remark.startswith("Unless marked, protocol heldout:") for remark in report.remarks)


def test_seeds_of_different_code_are_marked() -> None:
    runs = [run(seed=n, git={"commit": letter * 40}) for n, letter in enumerate("ab")]
    report = build(found(*runs), [])
    said = notes(report, cell(report, "chela", "ListOps").marks)
    assert said == ["chela on ListOps: the seeds differ in the code's commit"]


RANKS = st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=1, max_size=6)


@given(RANKS, RANKS, st.sampled_from(["lra", "other", "average"]))
def test_ranks_are_those_of_a_sorted_list(ours, theirs, kind) -> None:
    def rows(values) -> list[Row]:
        return [Row(str(n), (Cell(value),)) for n, value in enumerate(values)]

    def naive(value, values) -> int:
        printed = sorted({f"{v:.2f}" for v in values if v is not None}, key=float, reverse=True)
        count = sum(v is not None for v in values)
        if value is None or f"{value:.2f}" not in printed[:2]:
            return 0
        rank = printed.index(f"{value:.2f}") + 1
        return rank if count > rank else 0

    mine, others = ranked([Column("c", "c", kind)], rows(ours), rows(theirs))
    compared = kind != "other" and any(value is not None for value in ours)
    for value, row in zip(ours, mine, strict=True):
        assert row.cells[0].rank_ours == naive(value, ours)
        assert row.cells[0].rank_all == (naive(value, [*ours, *theirs]) if compared else 0)
    for value, row in zip(theirs, others, strict=True):
        assert row.cells[0].rank_ours == 0
        assert row.cells[0].rank_all == (naive(value, [*ours, *theirs]) if compared else 0)


def test_the_published_lines_are_whole_and_none_is_of_chela() -> None:
    lines = published()
    assert len(lines) == 24
    assert len({line.model for line in lines}) == 24
    assert all(line.source and line.kind for line in lines)
    assert all(set(line.accuracies) >= set(LRA) - {"pathx"} for line in lines)
    assert all(10 <= value <= 100 for line in lines for value in line.accuracies.values())
    assert not any("chela" in line.model.lower() for line in lines)
    report = build(found(run()), lines)
    assert any("no published value of CHELA" in remark for remark in report.remarks)


def test_an_average_of_the_literature_by_hand() -> None:
    report = build(found(run()), published())
    s4 = (59.60 + 86.82 + 90.90 + 88.65 + 94.20) / 5
    assert cell(report, "S4-v2", "Avg. of 5").mean == pytest.approx(s4)
    assert cell(report, "S4-v2", "Avg. of 6").mean == pytest.approx((5 * s4 + 96.35) / 6)
    local = (15.82 + 52.98 + 53.39 + 41.46 + 66.63 + 50) / 6
    assert cell(report, "Local Attention", "Avg. of 6").mean == pytest.approx(local)


def test_costs_are_of_the_finished_runs() -> None:
    runs = [run(seed=n) for n in range(3)] + [run(seed=3, status="running", accuracy=None)]
    (line,) = costs(build(found(*runs), []))
    assert line.parameters == 123_456
    assert line.tokens_per_second == 1.5e6 + 1  # the median
    assert line.peak_memory == 2_000_000_002  # the largest
    assert line.hardware == "NVIDIA H200"
    assert texts(line)[2:7] == ["123,456", "1.5M", "2 GB (GPU allocations)", "900", "1 h 02 min"]


def test_costs_that_no_record_says_are_dashes() -> None:
    bare = run(status="running", accuracy=None, parameters=None, hardware={"cpu": "a CPU"})
    (line,) = costs(build(found(bare), []))
    assert texts(line) == ["chela", "ListOps", "—", "—", "—", "—", "—", "a CPU"]


@pytest.mark.parametrize(
    ("hardware", "text"),
    [
        ({"cpu": "a CPU", "torch_threads": 1}, "a CPU, 1 thread"),
        ({"cpu": "a CPU", "torch_threads": 2}, "a CPU, 2 threads"),
        ({"gpu": "a GPU", "cpu": "a CPU", "torch_threads": 2}, "a GPU"),
        ({}, "—"),
    ],
)
def test_hardware_by_name(hardware, text) -> None:
    (line,) = costs(build(found(run(hardware=hardware)), []))
    assert texts(line)[-1] == text


def test_marks_count_like_the_columns_of_a_spreadsheet() -> None:
    assert [letters(n) for n in (0, 1, 25, 26, 27, 51, 52, 701, 702)] == (
        ["a", "b", "z", "aa", "ab", "az", "ba", "zz", "aaa"]
    )
    made = Notes()
    assert [made.mark(text) for text in ("x", "y", "x")] == ["a", "b", "a"]
    assert made.listed() == (("a", "x"), ("b", "y"))
