"""What is said of a sweep and its cells, from its files alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from chela.records.progress import sweep_states
from chela.records.state import PROGRESS, lease_of
from chela.records.sweeps import LEASE, Plan, SweepCell, read_cells, write_cell, write_plan
from tasks.holder import LAPSE
from tasks.lease import hold
from tests.records.test_state import run_of, shown
from tests.test_lease import ELSEWHERE, write


def sweep(root: Path, cells: int = 3) -> Path:
    folder = root / "sweeps" / "table-1"
    plan = [["task=x", f"seed={number}"] for number in range(cells)]
    write_plan(folder, Plan("table-1", "python train.py -m seed=0,1", plan))
    return folder


@pytest.mark.parametrize(
    "cell",
    [
        {"overrides": ["a"], "folder": {}},
        {"overrides": ["a"], "folder": "\0"},
        {"overrides": ["a"], "error": 5},
        {"overrides": [1], "folder": "../../a/seed0"},
        {"overrides": "ab"},
        {"overrides": ["a"], "best": "x"},
        {"overrides": ["a"], "folder": "/"},
        {"overrides": ["a"], "folder": "x" * 5000, "error": ""},
        {},
        [],
    ],
)
def test_a_cell_that_says_something_else_is_not_taken_for_one(tmp_path: Path, cell) -> None:
    folder = sweep(tmp_path)
    run_of(tmp_path, "a", "finished")
    write_cell(folder, 1, SweepCell(["seed=1"], "../../a/seed0"))
    (folder / "cells" / "000000.json").write_text(json.dumps(cell))
    assert "1 finished" in shown(tmp_path)


@pytest.mark.parametrize(
    "plan", [{"name": 1, "command": "", "cells": []}, {"name": "", "command": "", "cells": [1]}]
)
def test_a_plan_that_says_something_else_is_none(tmp_path: Path, plan) -> None:
    folder = sweep(tmp_path)
    write_cell(folder, 0, SweepCell(["seed=0"]))
    (folder / "sweep.json").write_text(json.dumps(plan))
    assert sweep_states(tmp_path) == ([], set())


def test_a_sweep_shows_each_cell(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    run_of(tmp_path, "a", "finished")
    write_cell(folder, 0, SweepCell(["task=x", "seed=0"], "../../a/seed0", best=0.5))
    write_cell(folder, 1, SweepCell(["task=x", "seed=1"], "../../b/seed0", error="out of luck"))
    text = shown(tmp_path)
    assert "table-1 does not run: 1 finished, 1 waiting, 1 failed" in text
    assert "to go on: python train.py -m seed=0,1" in text
    assert "out of luck" in text
    assert "other runs" not in text
    with hold(folder / LEASE):
        assert "table-1 runs:" in shown(tmp_path)


def test_a_cell_is_shown_by_its_own_overrides(tmp_path: Path) -> None:
    """Also where a process has numbered the cells of a folder in another order than its plan."""
    folder = sweep(tmp_path, 2)
    run_of(tmp_path, "a", "finished")
    write_cell(folder, 0, SweepCell(["task=x", "seed=1"], "../../a/seed0", best=0.5))
    write_cell(folder, 1, SweepCell(["task=x", "seed=0"], error="out of luck"))
    (found,), _ = sweep_states(tmp_path)
    assert [(name, state.status) for name, state in found.cells] == [
        ("seed=1", "finished"),
        ("seed=0", "failed"),
    ]


def test_what_runs_or_failed_stands_above_what_waits_or_is_finished(tmp_path: Path) -> None:
    folder = sweep(tmp_path, 4)
    for number, status in enumerate(["finished", "failed", "running"]):
        run = run_of(tmp_path, f"r{number}", status)
        own = ["task=x", f"seed={number}"]
        write_cell(folder, number, SweepCell(own, f"../../r{number}/seed0"))
    with hold(lease_of(run)):
        rows = [line.split() for line in shown(tmp_path).splitlines() if line.startswith("│")]
    assert [row[1] for row in rows] == ["seed=1", "seed=2", "seed=3", "seed=0"]


def test_a_cell_that_runs_again_is_not_failed(tmp_path: Path) -> None:
    folder = sweep(tmp_path, 1)
    run = run_of(tmp_path, "a", "running")
    write_cell(folder, 0, SweepCell([], "../../a/seed0", error="another process is running it"))
    with hold(lease_of(run)):
        (found,), _ = sweep_states(tmp_path)
    assert [state.status for _, state in found.cells] == ["running"]


def test_what_is_finished_is_counted_and_listed_on_demand(tmp_path: Path) -> None:
    folder = sweep(tmp_path, 1)
    run_of(tmp_path, "a", "finished")
    run_of(tmp_path, "other", "finished")
    write_cell(folder, 0, SweepCell(["seed=0"], "../../a/seed0", best=0.5))
    text = shown(tmp_path)
    assert "table-1 finished: 1 finished" in text
    assert "other runs: 1 finished" in text
    assert "other/seed0" not in text
    assert "other/seed0" in shown(tmp_path, everything=True)


def test_a_sweep_is_found_by_its_own_folder_and_by_that_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sweep(tmp_path, 1)
    run_of(tmp_path, "a", "finished")
    write_cell(folder, 0, SweepCell(["seed=0"], "../../a/seed0", best=0.5))
    for place in (folder, folder.parent):
        monkeypatch.chdir(place)
        for named in (place, Path()):
            assert shown(named) == "table-1 finished: 1 finished\n"


def test_eighty_columns_show_each_number_whole(tmp_path: Path) -> None:
    """Also beside a name and above a note that are longer than that."""
    run, name = run_of(tmp_path, "a", "running"), "model.mixer.long_conv_kernel=multiscale"
    folder, why = tmp_path / "sweeps" / "table-1", " ".join(["the memory would not suffice"] * 4)
    cells = [[name, "seed=0"], [name.replace("multiscale", "cosine"), "seed=1"]]
    write_plan(folder, Plan("table-1", "python train.py", cells))
    write_cell(folder, 0, SweepCell(cells[0], "../../a/seed0"))
    write_cell(folder, 1, SweepCell(cells[1], error=why))
    sign = {"step": 123_000, "steps": 137_500, "time": time.time(), "first_step": 0}
    sign |= {"first_time": time.time() - 1e6, "metric": "bits_per_byte", "value": 1.25}
    (run / PROGRESS).write_text(json.dumps(sign))
    with hold(lease_of(run)):
        text = shown(tmp_path, width=80)
    assert max(map(len, text.splitlines())) <= 80
    (row,) = [line for line in text.splitlines() if "running" in line and "│" in line]
    parts = [part.strip() for part in row.split("│")]
    assert parts[2:-1] == ["running", "89 % of 137,500", "32 h 44 min", "1.2500"]
    assert f"failed: {why}" in " ".join(text.split())


def test_a_sweep_that_never_began_is_left_out(tmp_path: Path) -> None:
    sweep(tmp_path)
    assert sweep_states(tmp_path) == ([], set())
    assert "no runs below" in shown(tmp_path)


def test_where_no_runs_are_the_folder_that_has_some_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path / "outputs", "a", "finished")
    run_of(tmp_path / "outputs" / "search" / "s", "b", "finished")
    sweep(tmp_path / "outputs")
    lease = lease_of(tmp_path / "killed" / "a" / "seed0")  # before its run began
    lease.parent.mkdir(parents=True)
    write(lease, ELSEWHERE, LAPSE + 5)
    monkeypatch.chdir(tmp_path)
    run = run.relative_to(tmp_path)
    for place in (run, run.parent, Path("outputs/sweeps"), Path()):
        assert shown(place) == f"no runs below {place} yet; try: chela status outputs\n"
    assert shown(Path("outputs/search")).endswith("chela status outputs/search/s\n")
    (tmp_path / "new" / "er").mkdir(parents=True)
    assert shown(Path("new/er")) == "no runs below new/er yet\n"


def test_beginning_again_forgets_what_failed(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    write_cell(folder, 0, SweepCell(["seed=0"], best=0.5))
    write_cell(folder, 1, SweepCell(["seed=1"], error="no"))
    (folder / "cells" / "000002.json").write_text("{")
    assert set(read_cells(folder)) == {0, 1}
    sweep(tmp_path)
    assert set(read_cells(folder)) == {0}
