"""What is said of a run and of a sweep while they run, from their files alone."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from chela.records.collect import collect
from chela.records.progress import overview, sweep_states
from chela.records.record import write_record
from chela.records.state import PROGRESS, lease_of, run_folders, run_state
from chela.records.sweeps import LEASE, Plan, SweepCell, read_cells, write_cell, write_plan
from tasks.holder import LAPSE
from tasks.lease import hold
from tests.conftest import ROOT, program
from tests.records.samples import record
from tests.test_lease import ELSEWHERE, write


def run_of(root: Path, name: str, status: str, **more) -> Path:
    """The folder of a run whose record says so."""
    folder = root / name / "seed0"
    folder.mkdir(parents=True)
    write_record(folder, {**record(status=status), **more})
    return folder


def signs(folder: Path, step: int, now: float = 100.0) -> None:
    content = {"step": step, "steps": 100, "time": now, "first_step": 20, "first_time": 40.0}
    more = {"tokens_per_second": 5000.0, "metric": "accuracy", "value": 0.25}
    (folder / PROGRESS).write_text(json.dumps(content | more))


def shown(root: Path, width: int = 160, **options: bool) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(overview(root, width=width, **options))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_running_or_died_is_told_by_the_lease(tmp_path: Path) -> None:
    folder = run_of(tmp_path, "a", "running")
    signs(folder, step=50)
    with hold(lease_of(folder)):
        state = run_state(folder, now=110.0)
    assert (state.status, state.step, state.steps, state.value) == ("running", 50, 100, 0.25)
    assert state.seconds_left == pytest.approx(2.0 * 50 - 10)  # 30 steps took 60 s, 10 s ago
    state = run_state(folder, now=110.0)
    assert (state.status, state.step, state.seconds_left) == ("died", 50, None)
    assert "repeat the command" in state.note


@pytest.mark.parametrize(
    ("age", "status", "said"),
    [
        (0, "running", "process 7 on node3"),
        (60, "running", "process 7 on node3, without a sign of life for 60 s (dead after 120)"),
        (130, "died", "repeat the command"),
    ],
)
def test_a_machine_that_died_is_told_before_its_lease_lapses(
    tmp_path: Path, age: float, status: str, said: str
) -> None:
    folder = run_of(tmp_path, "a", "running")
    write(lease_of(folder), ELSEWHERE, age)
    state = run_state(folder)
    assert state.status == status
    assert said in state.note
    assert ("sign of life" in state.note) == ("sign of life" in said)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"step": "x"}', '{"step": NaN, "steps": 1}'])
def test_damaged_signs_of_life_are_none(tmp_path: Path, text: str) -> None:
    folder = run_of(tmp_path, "a", "running")
    (folder / PROGRESS).write_text(text)
    with hold(lease_of(folder)):
        state = run_state(folder)
    assert (state.status, state.step, state.seconds_left) == ("running", None, None)


def test_before_the_first_step_and_after_the_last(tmp_path: Path) -> None:
    folder = run_of(tmp_path, "a", "running")
    with hold(lease_of(folder)):
        signs(folder, step=20)
        assert run_state(folder, now=100.0).seconds_left is None
        signs(folder, step=100)
        assert run_state(folder, now=100.0).note == "testing"


@pytest.mark.parametrize(
    ("step", "now", "left", "note"),
    [
        (50, 125.0, 75.0, ""),
        (50, 165.0, 35.0, "no step for 1 min 05 s"),
        (50, 300.0, None, "no step for 3 min 20 s"),  # and not that nothing is left
        (20, 300.0, None, "no step for 3 min 20 s"),
        (100, 300.0, None, "testing for 3 min 20 s"),
    ],
)
def test_a_run_that_stands_still_says_since_when(
    tmp_path: Path, step: int, now: float, left: float | None, note: str
) -> None:
    folder = run_of(tmp_path, "a", "running")
    signs(folder, step)
    with hold(lease_of(folder)):
        state = run_state(folder, now)
    assert (state.status, state.note) == ("running", note)
    assert state.seconds_left == (None if left is None else pytest.approx(left))


def test_every_other_state(tmp_path: Path) -> None:
    assert run_state(tmp_path / "none" / "seed0").status == "waiting"
    training = {"steps": 7, "planned_steps": 9, "tokens_per_second": 3.0}
    finished = run_of(
        tmp_path, "f", "finished", best={"step": 7, "accuracy": 0.5}, training=training
    )
    assert run_state(finished).value == 0.5
    failed = run_of(tmp_path, "g", "failed", error="RunError: no luck\nat all")
    assert run_state(failed).note == "RunError: no luck"
    pruned = run_of(tmp_path, "h", "interrupted", pruned="pruned at step 4")
    assert run_state(pruned).note == "pruned at step 4"
    with hold(lease_of(failed)):
        assert run_state(failed).status == "preparing"
    (failed / "record.json").write_text("{")
    assert run_state(failed).status == "unreadable"


HOSTILE = {
    "deep": b"[" * 100_000,
    "a list for a section": json.dumps({**record(status="failed"), "training": [1]}).encode(),
    "no object": b"[]",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_record_that_is_none_is_unreadable_and_the_rest_is_shown(
    tmp_path: Path, content: bytes
) -> None:
    run_of(tmp_path, "good", "failed", error="out of luck")
    (run_of(tmp_path, "bad", "failed") / "record.json").write_bytes(content)
    text = shown(tmp_path)
    assert "1 failed, 1 unreadable" in text
    assert "out of luck" in text
    assert [run.model for run in collect([tmp_path]).runs] == ["chela"]


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    folders = [run_of(tmp_path, name, "failed") for name in ("pipe", "endless", "loop", "good")]
    for folder in folders[:3]:
        (folder / "record.json").unlink()
    os.mkfifo(folders[0] / "record.json")
    os.mkfifo(f"{lease_of(folders[1])}.1")
    (folders[1] / "record.json").symlink_to("/dev/zero")
    (folders[2] / "record.json").symlink_to("record.json")
    assert [run_state(each).status for each in folders] == ["unreadable"] * 3 + ["failed"]
    assert len(collect([tmp_path]).unread) == 3
    assert "2 unreadable" in shown(tmp_path)  # a link to itself is no file


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


def test_runs_are_found_before_they_have_a_folder_and_in_searches(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".seed3.lease.1").touch()
    run_of(tmp_path / "search" / "s", "b", "failed")
    (tmp_path / "a" / "seed3.earlier-1").mkdir()
    (tmp_path / "a" / "seed3.earlier-1" / "record.json").touch()
    found = [str(each.relative_to(tmp_path)) for each in run_folders(tmp_path)]
    assert found == ["a/seed3", "search/s/b/seed0"]


def sweep(root: Path, cells: int = 3) -> Path:
    folder = root / "sweeps" / "table-1"
    plan = [["task=x", f"seed={number}"] for number in range(cells)]
    write_plan(folder, Plan("table-1", "python train.py -m seed=0,1", plan))
    return folder


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


def test_the_command_shows_it_once_or_until_ctrl_c(tmp_path: Path) -> None:
    run_of(tmp_path, "a", "failed", error="out of luck")
    once = program("-m", "chela", "status", tmp_path)
    assert once.returncode == 0, once.stderr
    assert "out of luck" in once.stdout
    command = [sys.executable, "-m", "chela", "status", str(tmp_path), "--watch", "0.1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert "other runs: 1 failed" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
    assert watching.returncode == 130


@pytest.mark.parametrize("arguments", [["nowhere"], [".", "--watch", "0"]])
def test_bad_arguments_are_one_message(arguments: list[str]) -> None:
    result = program("-m", "chela", "status", *arguments)
    assert result.returncode > 0
    assert "Traceback" not in result.stderr
    assert "no folder nowhere" in result.stderr or "not between" in result.stderr


def test_it_starts_without_torch() -> None:
    code = (
        "import sys, chela.commands.status;"
        "print(sorted({'torch', 'lightning', 'hydra', 'wandb'} & set(sys.modules)))"
    )
    assert program("-c", code).stdout == "[]\n"
