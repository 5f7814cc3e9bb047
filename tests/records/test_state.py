"""What is said of a run while it runs, from its files alone."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from chela.records.collect import collect
from chela.records.progress import overview
from chela.records.record import write_record
from chela.records.state import PROGRESS, lease_of, run_folders, run_state
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


def test_runs_are_found_before_they_have_a_folder_and_in_searches(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".seed3.lease.1").touch()
    run_of(tmp_path / "search" / "s", "b", "failed")
    (tmp_path / "a" / "seed3.earlier-1").mkdir()
    (tmp_path / "a" / "seed3.earlier-1" / "record.json").touch()
    found = [str(each.relative_to(tmp_path)) for each in run_folders(tmp_path)]
    assert found == ["a/seed3", "search/s/b/seed0"]


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
