"""The table against formulas written out again, cell by cell."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chela.records.collect import Collection, Unread
from chela.report.cells import summary
from chela.report.frame import Column, Report, letters, ranked, typed
from chela.report.published import LRA, departure, published
from chela.report.render import costs, markdown
from chela.report.table import build
from tests.records.samples import SIZES, cell, found, ours, run


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_mean_and_deviation_are_the_textbook_ones(accuracies) -> None:
    made = summary([run(seed=seed, accuracy=a) for seed, a in enumerate(accuracies)])
    n = len(accuracies)
    mean = sum(100 * a for a in accuracies) / n
    assert made["n_seeds"] == n
    assert made["value"] == pytest.approx(mean)
    of_the_split = sum(100 * math.sqrt(a * (1 - a) / 2_000) for a in accuracies) / n
    if n == 1:
        assert made["std"] is None
        assert made["standard_error"] == pytest.approx(of_the_split, abs=1e-9)
    else:
        naive = math.sqrt(sum((100 * a - mean) ** 2 for a in accuracies) / (n - 1))
        assert made["std"] == pytest.approx(naive, abs=1e-9)
        both = math.sqrt(naive**2 / n + of_the_split**2)
        assert made["standard_error"] == pytest.approx(both, abs=1e-9)


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        (["running"], "running"),
        (["running", "interrupted"], "interrupted"),
        (["interrupted", "failed", "running"], "failed"),
    ],
)
def test_without_a_number_a_cell_says_why(statuses, state) -> None:
    made = summary([run(seed=n, status=each, accuracy=None) for n, each in enumerate(statuses)])
    assert (made.get("value"), made["n_seeds"], made["state"]) == (None, 0, state)


def test_seeds_without_a_number_are_said_and_not_counted() -> None:
    runs = [run(seed=0, accuracy=0.5), run(seed=1, accuracy=None, status="failed")]
    report = build(found(*runs))
    made = cell(report, "chela", "ListOps")
    assert (made.value, made.n_seeds) == (50, 1)
    assert list(made.notes) == ["chela on ListOps: seed 1 failed; not in the mean"]
    (sentence,) = report.unfinished
    assert "chela on ListOps, seed 1: failed: NonFinite: the loss is nan (outputs/" in sentence


def test_an_average_has_the_marks_of_its_cells() -> None:
    runs = [run(task=task, protocol="lra" if task == "text" else "heldout") for task in SIZES]
    report = build(found(*runs))
    notes = cell(report, "chela", "Text").notes
    assert len(notes) == 1
    assert cell(report, "chela", "Avg. of 5").notes == notes
    assert cell(report, "chela", "Avg. of 6").notes == notes


def test_a_long_error_is_cut_below_the_table() -> None:
    report = build(found(run(status="failed", accuracy=None, error="x" * 400 + "\nsecond")))
    assert f": {'x' * 300}… (" in report.unfinished[0]


def test_a_stand_in_has_its_own_column_and_name() -> None:
    runs = [
        run(task="image", accuracy=0.9),
        run(task="image", stand_in="cifar10-jpeg", identity="x"),
    ]
    report = build(found(*runs), published())
    assert [column.title for column in report.columns][-1] == "cifar10-jpeg"
    assert cell(report, "chela", "Image").value == 90
    made = cell(report, "chela", "cifar10-jpeg")
    assert made.value == 50
    assert made.rank_all == 0
    assert "stand-in for the data of Image" in report.columns[-1].notes[0]


@pytest.mark.parametrize("name", ["image", "Image", "official", "generated", "Path-X"])
def test_a_stand_in_never_bears_the_name_of_the_real_data(name) -> None:
    report = build(found(run(task="image", stand_in=name)))
    assert [column.title for column in report.columns][-1] == f"Image ({name})"


def test_smaller_data_are_another_column_out_of_average_and_comparison() -> None:
    runs = [run(task=task, accuracy=0.5, sizes=(10, 5, 5, 10)) for task in SIZES]
    whole = run("s4d", accuracy=0.4)
    report = build(found(*runs, whole), published())
    (_, cells), _ = report.ours
    assert [c.state for c in cells[:1]] == ["missing"]
    assert [c.value for c in cells[1:]] == [50] * 6
    assert all(
        column.title.startswith(LRA[column.key.partition(":")[0]].title + " (")
        for column in report.columns[1:]
    )
    assert not any(c.rank_all for c in cells)


def test_beside_other_data_alone_no_published_row_stands() -> None:
    """Twenty rows of them and eight empty columns would hide one's own two numbers."""
    runs = [run(model, accuracy=0.5, sizes=(10, 5, 5, 10)) for model in ("chela", "s4d")]
    report = build(found(*runs), published())
    assert [column.kind for column in report.columns] == ["other"]
    assert [row.name for row in ours(report)] == ["chela", "s4d"]
    assert report.published == [*report.sources] == []
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
    assert titles == ["ListOps", "adding", "sc10"]
    every = build(found(*(run(task=task) for task in (*SIZES, "sc10"))), published())
    titles = [column.title for column in every.columns]
    assert titles[:6] == ["ListOps", "Text", "Retrieval", "Image", "Pathfinder", "Path-X"]
    assert titles[6:] == ["Avg. of 5", "Avg. of 6", "sc10"]


def test_a_run_without_a_number_stands_alone() -> None:
    """Twenty published rows and eight empty columns would hide that it stopped."""
    report = build(found(run(status="interrupted", accuracy=None)), published())
    assert [column.title for column in report.columns] == ["ListOps"]
    assert len(report.cells) == 1
    assert report.sources == ()
    nothing = build(Collection((), (Unread(Path("a/record.json"), "half"),), ()), published())
    assert (nothing.columns, nothing.rows, len(nothing.cells)) == ((), (), 0)
    assert len(nothing.remarks) == 1  # no data, so nothing that could be said of them
    assert "a/record.json: half" in markdown(nothing)


def with_pathx(status: str | None) -> Report:
    runs = [run(task=task, accuracy=0.6 + 0.01 * n) for n, task in enumerate(SIZES)][:5]
    if status:
        runs.append(
            run(task="pathx", accuracy=0.9 if status == "finished" else None, status=status)
        )
    return build(found(*runs))


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
    assert cell(report, "chela", "Avg. of 5").value == pytest.approx(62)
    if six is None:
        assert "Avg. of 6" not in {column.title for column in report.columns}
        return
    made = cell(report, "chela", "Avg. of 6")
    assert made.value == pytest.approx(six)
    said = list(made.notes)
    assert (["counts as 50" in text for text in said] == [True]) == (status in ("failed", None))


@pytest.mark.parametrize("absent", range(5))
def test_no_average_where_one_of_the_five_is_missing(absent) -> None:
    tasks = [task for n, task in enumerate(SIZES) if n != absent]
    report = build(found(*(run(task=task) for task in tasks)))
    assert not any(column.kind == "average" for column in report.columns)


def test_the_protocol_is_marked_where_it_is_not_the_usual_one() -> None:
    report = build(found(run(task="text", protocol="lra"), run(task="image")))
    marked = cell(report, "chela", "Text")
    assert list(marked.notes) == [
        "protocol lra: weights selected by highest accuracy on the test split itself"
    ]
    assert cell(report, "chela", "Image").notes == ()
    assert any(remark.startswith("Unless marked, protocol heldout:") for remark in report.remarks)


def test_seeds_of_different_code_are_marked() -> None:
    runs = [run(seed=n, git={"commit": letter * 40}) for n, letter in enumerate("ab")]
    report = build(found(*runs))
    said = list(cell(report, "chela", "ListOps").notes)
    assert said == ["chela on ListOps: the seeds differ in the code's commit"]


VALUES = st.lists(
    st.tuples(st.none() | st.floats(0, 100), st.none() | st.floats(0, 5)), min_size=1, max_size=6
)


@given(
    VALUES, VALUES, st.sampled_from(["lra", "other", "average"]), st.sampled_from(["max", "min"])
)
def test_ranks_are_those_of_a_sorted_list(ours, theirs, kind, direction) -> None:
    """The best with all within two of its standard errors, or none; then the same of the rest."""

    def naive(values) -> list[int]:
        found = {n: 0 for n, (value, _) in enumerate(values) if value is not None}
        better = max if direction == "max" else min
        for rank in (1, 2):
            left = [n for n, given in found.items() if not given]
            if not left:
                break
            value, error = values[better(left, key=lambda n: values[n][0])]
            group = [
                n
                for n in left
                if abs(values[n][0] - value) <= 2 * (error or 0)
                or f"{values[n][0]:.2f}" == f"{value:.2f}"
            ]
            if len(group) == len(left):
                break
            found |= dict.fromkeys(group, rank)
        return [found.get(n, 0) for n in range(len(values))]

    everyone = [("measured", *each) for each in ours] + [("published", *each) for each in theirs]
    cells = [
        {"origin": origin, "key": "c", "value": value, "standard_error": error}
        for origin, value, error in everyone
    ]
    made = ranked(typed(cells), [Column("c", "c", kind, direction=direction)])
    assert list(made["rank_ours"]) == [*naive(ours), *[0] * len(theirs)]
    compared = kind != "other" and any(value is not None for value, _ in ours)
    assert list(made["rank_all"]) == (naive([*ours, *theirs]) if compared else [0] * len(everyone))


def test_numbers_within_the_error_of_the_best_are_not_told_apart() -> None:
    """One seed and 2,000 test samples: 0.7 points are nothing."""
    runs = [run("a", accuracy=0.5), run("b", accuracy=0.507)]
    assert not any(build(found(*runs)).cells["rank_ours"])
    report = build(found(*runs, run("c", accuracy=0.4)))
    assert list(report.cells["rank_ours"]) == [1, 1, 0]
    assert list(build(found(*runs, run("c", accuracy=0.8))).cells["rank_ours"]) == [0, 0, 1]


def test_only_the_benchmarks_data_bear_its_name() -> None:
    assert build(found(run(), run(task="adding"))).title == "Long Range Arena"
    assert build(found(run(sizes=(9, 9, 9, 9)), run(task="adding"))).title == "Results"


def test_a_column_says_its_metric_where_there_are_several() -> None:
    report = build(found(run(), run(task="adding")))
    assert report.metric == "accuracy (%)"
    first, second = report.columns
    perplexity = replace(second, metric="perplexity", unit="per token", direction="min")
    report = replace(report, columns=(first, perplexity))
    assert [report.heading(each) for each in report.columns] == [
        "ListOps, accuracy (%)",
        "adding, perplexity (per token)",
    ]


def test_the_published_lines_are_whole_and_none_is_of_chela() -> None:
    lines = published()
    assert len(lines) == lines["model"].nunique() == 24
    assert lines.drop(columns="pathx").notna().all(axis=None)
    assert lines[list(LRA)].stack().dropna().between(10, 100).all()
    assert not lines["model"].str.contains("chela", case=False).any()
    report = build(found(run()), lines)
    assert any("no published value of CHELA" in remark for remark in report.remarks)


def test_an_average_of_the_literature_by_hand() -> None:
    report = build(found(*(run(task=task) for task in SIZES)), published())
    s4 = (59.60 + 86.82 + 90.90 + 88.65 + 94.20) / 5
    assert cell(report, "S4-v2", "Avg. of 5").value == pytest.approx(s4)
    assert cell(report, "S4-v2", "Avg. of 6").value == pytest.approx((5 * s4 + 96.35) / 6)
    local = (15.82 + 52.98 + 53.39 + 41.46 + 66.63 + 50) / 6
    assert cell(report, "Local Attention", "Avg. of 6").value == pytest.approx(local)


def test_costs_are_of_the_finished_runs() -> None:
    runs = [run(seed=n) for n in range(3)] + [run(seed=3, status="running", accuracy=None)]
    report = build(found(*runs))
    (line,) = costs(report)
    made = cell(report, "chela", "ListOps")
    assert made.tokens_per_second == 1.5e6 + 1  # the median
    assert made.peak_memory_bytes == 2_000_000_002  # the largest
    assert line[2:] == [
        "123,456",
        "1.5M",
        "2 GB",
        "900",
        "1 h 02 min",
        "NVIDIA H200",
    ]


def test_costs_that_no_record_says_are_dashes() -> None:
    bare = run(status="running", accuracy=None, parameters=None, hardware={"cpu": "a CPU"})
    (line,) = costs(build(found(bare)))
    assert line == ["chela", "ListOps", "—", "—", "—", "—", "—", "a CPU"]


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
    (line,) = costs(build(found(run(hardware=hardware))))
    assert line[-1] == text


def test_marks_count_like_the_columns_of_a_spreadsheet() -> None:
    assert [letters(n) for n in (0, 1, 25, 26, 27, 51, 52, 701, 702)] == (
        ["a", "b", "z", "aa", "ab", "az", "ba", "zz", "aaa"]
    )


def test_the_same_note_has_the_same_mark_in_reading_order() -> None:
    runs = [run(task=task, protocol="lra") for task in ("listops", "text")]
    report = build(found(*runs, run("a", "image", stand_in="mine")))
    assert list(report.marks.values()) == ["a", "b"]
    assert next(iter(report.marks)).startswith("stand-in for the data of Image")
