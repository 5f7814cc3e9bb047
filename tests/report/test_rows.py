"""Rows of the table: what is averaged in one, how it is called, and what is noted of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from chela.records.collect import Run, parse
from chela.report.naming import describe
from chela.report.table import build
from tests.records.samples import cell, found, ours, record, run


def test_other_configurations_are_never_averaged() -> None:
    runs = [
        run(seed=seed, accuracy=accuracy, choices={"depth": depth})
        for depth, accuracy in ((2, 0.2), (4, 0.4))
        for seed in (0, 1)
    ]
    report = build(found(*runs))
    assert [row.name for row in ours(report)] == ["chela (depth=2)", "chela (depth=4)"]
    assert cell(report, "chela (depth=2)", "ListOps").value == pytest.approx(20)
    assert cell(report, "chela (depth=4)", "ListOps").value == pytest.approx(40)


def test_other_data_are_never_averaged() -> None:
    runs = [run(seed=n, accuracy=n / 4, fingerprint=letter * 64) for n, letter in enumerate("ab")]
    report = build(found(*runs))
    assert sorted(report.cells["value"].dropna()) == [0, 25]
    for row in ours(report):
        (note,) = list(row.notes)
        assert note == f"{row.name}: the same configuration as another row, other data"


def test_versions_of_one_configuration_are_told_apart() -> None:
    """Two ids of runs whose records do not say what they are made of."""
    made = [record(seed=n, identity=f"{n}" * 8, fingerprint="d" * 64) for n in range(2)]
    runs = [parse({**each, "identity": {}}, Path()) for each in made]
    report = build(found(*runs))
    assert len(ours(report)) == 2
    for row in ours(report):
        (other,) = {each.identity for each in runs} - {row.label}
        (note,) = list(row.notes)
        assert note == (
            f"{row.name}: as {other} in all keys that both have; "
            "one is of another version of this project"
        )


def test_a_row_that_began_with_earlier_weights_says_so() -> None:
    began = {"run_id": "easy-1234abcd-seed0", "step": 900, "data_fingerprint": "f" * 64}
    report = build(found(run(initial_weights=began)))
    (row,) = ours(report)
    (note,) = list(row.notes)
    assert note == "chela: began with the weights of an earlier run; the record says which"
    assert ours(build(found(run(initial_weights=None))))[0].notes == ()


def test_a_key_that_one_run_alone_has_off_its_neutral_value_tells_rows_apart() -> None:
    """The other is at the neutral value, or of before the key, where nothing else was possible."""
    runs = [run(fingerprint="d" * 64), run(choices={"later": 1}, fingerprint="d" * 64)]
    names = [row.name for row in ours(build(found(*runs)))]
    assert names == ["chela (later=1)", "chela (later=null)"]


def test_where_runs_began_tells_rows_apart() -> None:
    """Also from a run of before the key was there, which began with random weights."""
    runs = [
        run(fingerprint="d" * 64),
        *(began(name) for name in (None, "a-1234abcd", "b-1234abcd")),
    ]
    names = [row.name for row in ours(build(found(*runs[:1], *runs[2:])))]
    expected = ["null", "a-1234abcd", "b-1234abcd"]
    assert sorted(names) == sorted(f"chela (start_from={each})" for each in expected)
    names = [row.name for row in ours(build(found(*runs[1:])))]
    assert sorted(names) == sorted(f"chela (start_from={each})" for each in expected)


def began(name: str | None) -> Run:
    made = record(identity=f"{name or 'random weights':.8}", fingerprint="d" * 64)
    made["config"]["start_from"] = name
    if name is not None:
        made["identity"]["start_from"] = name
    return parse(made, Path())


def test_what_hides_behind_a_hash_is_noted() -> None:
    runs = [run(identity=name * 8, choices={"long": name * 50}) for name in "ab"]
    report = build(found(*runs))
    assert [row.name for row in ours(report)] == ["chela (aaaaaaaa)", "chela (bbbbbbbb)"]
    for row, letter in zip(ours(report), "ab", strict=True):
        assert list(row.notes) == [f"{row.name}: long={letter * 50}"]


def named(name: str, identity: str, seed: int = 0, **choices: object) -> Run:
    """A run of ``name=...``."""
    made = record(seed=seed, choices=choices)
    made["config"]["name"], made["run_id"] = name, f"{name}-{identity}-seed{seed}"
    return parse(made, Path("outputs", f"{name}-{identity}", f"seed{seed}"))


def test_a_row_behind_a_hash_has_the_name_that_its_runs_were_given() -> None:
    long = {letter: letter * 50 for letter in "abcd"}
    usual, longest = named("listops-chela", "cccc", text=long["c"]), "n" * 50
    runs = [named("mine", "aaaa", text=long["a"]), named("theirs", "bbbb", text=long["b"])]
    report = build(found(*runs, usual, named(longest, "dddd", text=long["d"])))
    assert [row.label for row in ours(report)] == ["cccc", "dddd", "mine-aaaa", "theirs-bbbb"]
    for row in ours(report):  # what the name stands for is noted all the same
        (note,) = list(row.notes)
        assert note.startswith(f"{row.name}: text=")


def test_a_name_is_no_other_configuration() -> None:
    """Runs that differ in it alone compute the same, and are seeds of one cell."""
    a, b = "a" * 50, "b" * 50
    mine = [named("mine", "aaaa", 0, text=a), named("yours", "aaaa", 1, text=a)]
    report = build(found(*mine, named("other", "bbbb", text=b)))
    rows = [(row.label, cells[0].n_seeds) for row, cells in report.ours]
    assert rows == [("aaaa", 2), ("other-bbbb", 1)]


def test_what_is_not_the_shipped_recipe_and_does_not_say_so_has_a_note() -> None:
    """A baseline trained for fewer epochs than its recipe's must not pass for it."""
    same = {"choices": {"depth": 6}, "departures": {"task.num_train": 1}}
    other = {"choices": {"depth": 4}, "departures": {"task.num_train": 1, "model.depth": 6}}
    report = build(found(run("s4d", **same), run("mega", **other)))
    assert list(cell(report, "s4d", "ListOps").notes) == []
    (note,) = list(cell(report, "mega", "ListOps").notes)
    assert note == "mega on ListOps: unlike the shipped recipe in depth=4"
    both = [run(**each, identity=f"{n}" * 8) for n, each in enumerate((same, other))]
    report = build(found(*both))
    assert [row.name for row in ours(report)] == ["chela", "chela (depth=4)"]
    assert report.marks == {}
    for each in (same, other):
        each["choices"]["dim"], each["departures"]["model.dim"] = 32, 64
    narrow = [run(**each, identity=f"{n}" * 8) for n, each in enumerate((same, other))]
    report = build(found(*narrow))
    (note,) = cell(report, "chela (depth=4)", "ListOps").notes
    assert note == (
        "chela (depth=4) on ListOps: besides what its name says, "
        "unlike the shipped recipe in dim=32"
    )


def test_departures_are_noted_in_the_order_of_the_record() -> None:
    """So that the same records make the same files in every process."""
    keys = ["gate", "norm", "depth", "kernel", "heads"]
    departures = {f"model.{key}": 0 for key in keys}
    report = build(found(run(choices=dict.fromkeys(keys, 1), departures=departures)))
    (note,) = report.marks
    assert note.endswith("in gate=1, norm=1, depth=1, kernel=1, heads=1")


def test_a_difference_that_stands_behind_a_hash_is_said_once() -> None:
    usual = {f"quite_a_long_key_of_a_model_{n}": n for n in range(3)}
    unlike = {f"model.{key}": value for key, value in usual.items()}
    runs = [
        run(choices=usual, departures={}),
        run(choices=dict.fromkeys(usual, 9), departures=unlike, identity="9" * 8),
    ]
    report = build(found(*runs))
    (row,) = [row for row in ours(report) if row.label == "9" * 8]
    (note,) = list(row.notes)
    assert note.count("=9") == 3
    assert list(report.marks) == [note]


def test_what_is_no_recipe_stands_beside_recipes_under_a_name_that_is_explained() -> None:
    """Also alone in its column, with more unlike its recipe than a name can hold, or unknown."""
    keys = {f"quite_a_long_key_of_a_model_{n}": n for n in range(3)}
    unlike = {f"model.{key}": 9 for key in keys}
    report = build(
        found(
            run(task="text", departures={}),
            run(task="image", choices=keys, departures=unlike, identity="1" * 8),
            run(task="listops", identity="2" * 8),
        )
    )
    assert [(row.name, *row.notes) for row in ours(report)] == [
        ("chela",),
        (f"chela ({'1' * 8})", f"chela ({'1' * 8}): {describe(keys, list(keys))}"),
        (
            f"chela ({'2' * 8})",
            f"chela ({'2' * 8}): its record does not say what its recipe had otherwise",
        ),
    ]


def test_a_key_that_is_younger_than_a_run_tells_nothing_where_it_does_nothing() -> None:
    """A third row has it, in another column."""
    old, new = (record(choices={"depth": depth}, fingerprint="d" * 64) for depth in (2, 4))
    new["config"]["model"]["later"] = 0  # its neutral value, which no identity has
    runs = [parse(each, Path()) for each in (old, new)]
    report = build(found(*runs, run(task="text", choices={"later": 1})))
    assert [row.label for row in ours(report)] == ["", "depth=2", "depth=4"]


def test_recipes_fill_one_row_though_a_sweep_of_another_task_fits_one() -> None:
    """Each task's recipe is "chela", also where it has the width of a row of widths."""
    words = {f"quite_a_long_key_of_a_model_{n}": 0 for n in range(3)}
    departures = {f"model.{key}": 0 for key in words}
    recipe = {"choices": {**words, "dim": 128}, "departures": {}}
    report = build(
        found(
            run(task="text", **recipe),
            run(
                task="text",
                choices=dict.fromkeys(words, 9),
                departures=departures,
                identity="9" * 8,
            ),
            run(task="image", choices={"dim": 128}, departures={"model.dim": 64}, identity="1" * 8),
            run(task="image", choices={"dim": 256}, departures={"model.dim": 64}, identity="2" * 8),
            run(task="pathfinder", choices={"dim": 128}, departures={"task.source": "auto"}),
        )
    )
    row = {title: cell(report, "chela", title).n_seeds for title in ("Text", "Image", "Pathfinder")}
    assert row == {"Text": 1, "Image": 0, "Pathfinder": 1}
