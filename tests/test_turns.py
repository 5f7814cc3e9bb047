"""One sweep, any number of processes: each takes the next cell that nobody runs."""

from __future__ import annotations

import math
import os
import pickle
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf
from rich.console import Console

from chela.errors import ConfigError, InUse
from chela.launch import plugins, turns
from chela.launch.sweep import SweepCallback
from chela.launch.turns import FOLDER, TurnLauncher, Turns
from chela.records import sweeps
from chela.records.progress import cells_table
from chela.records.state import lease_of
from chela.records.sweeps import NAME, Plan, SweepCell, read_cells, write_cell, write_plan
from chela.signals import StoppingSignals
from tasks import lease
from tasks.lease import hold
from tests.conftest import ROOT
from tests.test_lease import ELSEWHERE, wait_for, write

CELLS = [["seed=0"], ["seed=1"], ["seed=2"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep's, of three cells."""
    folder = tmp_path / "sweeps" / "x"
    write_plan(folder, Plan("x", "python train.py -m seed=0,1,2", CELLS))
    return folder


def cell(number: int, **more: object) -> SweepCell:
    """One whose run has begun."""
    return replace(SweepCell(CELLS[number], f"../../a/seed{number}"), **more)  # type: ignore[arg-type]


def run_of(folder: Path, number: int) -> Path:
    place = lease_of(folder / str(cell(number).folder))
    place.parent.mkdir(exist_ok=True)
    return place


def test_a_cell_that_another_process_runs_waits_and_the_next_is_taken(folder: Path) -> None:
    write_cell(folder, 0, cell(0))
    given = Turns(folder, CELLS, 0)
    with hold(run_of(folder, 0)):
        assert [each and each.number for each in (given.next(), given.next())] == [1, 2]
        assert given.next() is None
        assert [each.number for each in given.waiting] == [0]
        assert not given.may_become_free()  # it is the other's
    assert given.may_become_free()  # whose process has ended without a word


@pytest.mark.parametrize(
    ("planned", "label"),
    [
        ([["task=a", "seed=0"], ["task=a", "seed=1"]], "seed=0"),
        ([["task=a", "seed=0"]], "the one cell"),
        (
            [],
            "task=a seed=0",
        ),  # of a sweeper that decides step by step
    ],
)
def test_a_cell_is_called_by_what_tells_it_from_the_others(
    tmp_path: Path, planned: list[list[str]], label: str
) -> None:
    """Of the sweep, however many of them a launcher is given at once."""
    write_plan(tmp_path, Plan("x", "chela train -m", planned))
    (found,) = Turns(tmp_path, [["task=a", "seed=0"]], 0).cells
    assert found.label == f"[1] {label}"
    if planned:
        cells = [SweepCell(each, error="out of luck") for each in planned]
        console = Console(width=100, record=True)
        console.print(cells_table("x", tmp_path, cells))
        shown = console.export_text()
        assert label in shown and "failed: out of luck" in shown and "task=a" not in shown


def test_what_others_ended_since_is_not_begun_again(folder: Path) -> None:
    write_cell(folder, 0, cell(0, best=0.5))  # before: it is shown
    given = Turns(folder, CELLS, 0)
    write_cell(folder, 1, cell(1, best=0.5))
    write_cell(folder, 2, cell(2, error="out of luck"))
    assert [each and each.number for each in (given.next(), given.next())] == [0, None]
    assert not given.waiting
    assert [each.return_value for each in given.returned()[:2]] == [0.5, 0.5]
    assert math.isnan(given.returned()[2].return_value)


def test_what_finished_without_a_number_is_shown_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that never validated the best value is NaN, which equals no other NaN."""
    monkeypatch.setattr(sweeps, "read_cells", lambda _: {0: cell(0, best=float("nan"))})
    first = Turns(folder, CELLS, 0).next()
    assert first is not None
    assert first.number == 0


def test_a_cell_has_finished_if_the_run_it_means_today_has(folder: Path) -> None:
    """A job of Slurm is submitted for the others, also where a file has changed that they name."""
    shipped = ROOT / "outputs/records/retr-0f17f1cd/seed0"
    place = folder.parents[1] / "a/seed0"
    write_cell(folder, 0, cell(0, best=0.5))
    write_cell(folder, 1, cell(1))
    given = Turns(folder, CELLS, 0)
    first, second, third = given.cells
    assert not given.finished(first, lambda: place)  # its folder was removed
    shutil.copytree(shipped, place)
    assert given.finished(first, lambda: place)
    assert not given.finished(first, lambda: place.with_name("seed3"))
    assert not given.finished(first, lambda: None)  # it cannot be configured any more
    assert not given.finished(second, pytest.fail)
    assert not given.finished(third, pytest.fail)


@pytest.mark.parametrize(
    ("error", "why"), [("", "it gave no reason"), ("\n", "it gave no reason"), ("a\nb", "a")]
)
def test_why_a_cell_failed_is_one_line(error: str, why: str) -> None:
    assert cell(0, error=error).why == why


def test_a_cell_without_a_word_waits_again(folder: Path) -> None:
    given = Turns(folder, CELLS, 0)
    first = given.next()
    assert first is not None
    assert given.put_back(first)
    write_cell(folder, 1, cell(1, best=0.5))
    second = given.next()
    assert second is not None
    assert second.number == 2


def test_a_cell_that_a_run_outside_of_the_sweep_has_is_left_to_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written of the cell until it begins, and then where its run is."""
    monkeypatch.setenv(FOLDER, str(folder))
    monkeypatch.setattr("chela.launch.sweep.run_folder", lambda _: folder / "../../a/seed0")
    job = {"runtime": {"cwd": str(Path.cwd())}, "overrides": {"task": CELLS[0]}, "job": {"num": 0}}
    config = OmegaConf.create({"hydra": {**job, "mode": RunMode.MULTIRUN}})
    in_use = JobReturn(status=JobStatus.FAILED)
    in_use.return_value = InUse("process 7 is at it\n  try: another seed")
    given = Turns(folder, CELLS, 0)
    with hold(run_of(folder, 0)):
        first = given.next()
        assert first is not None
        SweepCallback().on_job_start(config)
        SweepCallback().on_job_end(config, in_use)
        assert capsys.readouterr().out == "process 7 is at it\n"  # there is nothing to be done
        assert given.put_back(first)
        assert [each and each.number for each in (given.next(), given.next(), given.next())] == [
            *(1, 2),
            None,
        ]
        assert not given.may_become_free()


def test_the_silent_are_waited_for_and_their_cells_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The machine that ran the second cell is gone; another process is at the third."""
    monkeypatch.setenv(FOLDER, str(folder))
    for number in (1, 2):
        write_cell(folder, number, cell(number))
    silent = write(run_of(folder, 1), ELSEWHERE, age=60)
    ran: list[int] = []
    labelled = Turns(folder, CELLS, 0).cells[:2]

    def launch(_: object, overrides: Sequence[Sequence[str]], number: int) -> list[object]:
        ran.append(number)
        write_cell(folder, number, cell(number, best=0.25))
        return []

    def lapse(_: float) -> None:
        silent.unlink(missing_ok=True)
        monkeypatch.setattr(turns, "PAUSE", 0.0)

    # Hydra imports its plugins anew when it looks for them: the name here may be another class
    monkeypatch.setattr(TurnLauncher.__base__, "launch", launch)
    monkeypatch.setattr(turns, "PAUSE", 0.0)
    monkeypatch.setattr("time.sleep", lapse)
    with hold(run_of(folder, 2)):
        returned = TurnLauncher().launch(CELLS, 0)
    assert ran == [0, 1]
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("[")] == [each.label for each in labelled]
    assert [each.return_value for each in returned[:2]] == [0.25, 0.25]


def test_the_end_says_what_others_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FOLDER, str(folder))
    monkeypatch.setenv(NAME, "x")
    monkeypatch.setattr("chela.track.wandb_table.log_table", lambda *_: None)
    for number in (0, 1):
        write_cell(folder, number, cell(number, best=0.5))
    write_cell(folder, 2, cell(2))
    with hold(run_of(folder, 2)):
        SweepCallback().on_multirun_end(OmegaConf.create())
    shown = capsys.readouterr().out
    assert "1 of 3 cells are run by other processes" in shown
    assert "running" in shown
    assert "failed" not in shown


def test_what_has_failed_under_another_process_is_not_tried_again(folder: Path) -> None:
    """Who begins a sweep forgets what had failed before; what has failed since is known."""
    write_cell(folder, 0, cell(0, error="out of luck"))
    first = Turns(folder, CELLS, 0).next()
    assert first is not None
    assert first.number == 1


def test_a_cell_on_another_machine_has_the_sweeps_environment_and_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm's and Ray's processes have a command of theirs, and Ray's the environment of theirs."""
    monkeypatch.setattr("chela.launch.sweep.planned_cells", lambda _: CELLS)
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=0,1,2"])
    section = {
        "sweep": {"dir": str(folder.parents[1])},
        "runtime": {"choices": {}, "cwd": str(Path.cwd()), "config_sources": []},
        "overrides": {"task": []},
        "sweeper": {},
        "job": {"num": 0},
    }
    config = OmegaConf.create({"hydra": section})
    callback = SweepCallback()
    callback.on_multirun_start(config)
    sent = pickle.dumps(callback)
    monkeypatch.setattr(sys, "argv", ["_submit.py"])
    for name in (FOLDER, NAME):
        monkeypatch.delenv(name)
    pickle.loads(sent).on_job_start(config)
    assert sys.argv == ["train.py", "-m", "seed=0,1,2"]
    assert read_cells(Path(os.environ[FOLDER])) == {0: SweepCell([])}


def test_a_sweep_whose_folder_is_removed_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its runs have leases of their own, and are elsewhere."""
    ended: list[int] = []
    monkeypatch.setattr(lease, "RENEW", 0.01)
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setattr("chela.launch.sweep.planned_cells", lambda _: CELLS[:1])
    monkeypatch.setattr("chela.track.wandb_table.log_table", lambda *_: None)
    for name in (FOLDER, NAME):
        monkeypatch.setenv(name, "")  # which the sweep sets; put back after the test
    section = {
        "sweep": {"dir": str(folder.parents[1])},
        "runtime": {"choices": {}, "cwd": str(Path.cwd()), "config_sources": []},
        "overrides": {"task": CELLS[0]},
        "sweeper": {},
        "job": {"num": 0},
        "mode": "MULTIRUN",
    }
    config, callback, before = OmegaConf.create({"hydra": section}), SweepCallback(), threads()
    callback.on_multirun_start(config)
    callback.on_job_start(config)
    shutil.rmtree(os.environ[FOLDER])
    wait_for(lambda: threads() <= before)  # who renews the lease has seen it
    finished = JobReturn(status=JobStatus.COMPLETED)
    finished.return_value = 0.5
    callback.on_job_end(config, finished)
    callback.on_multirun_end(config)
    assert not ended
    assert "0.5000" in capsys.readouterr().out


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_a_launcher_whose_package_is_missing_says_what_to_install() -> None:
    extra = plugins._extra("SlurmLauncher", "chela.launch.slurm", "hydra_plugins.none", "slurm")
    with pytest.raises(ConfigError, match=r"needs none(.|\n)*pip install 'chela\[slurm\]'"):
        extra()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_who_had_a_handler_before_gets_the_signal_when_all_is_saved(number: int) -> None:
    """What runs jobs of Slurm puts the job into the queue again."""
    order: list[str] = []
    before = signal.signal(number, lambda *_: order.append("requeued"))
    try:
        with StoppingSignals(lambda _: order.append("noted")):
            signal.raise_signal(number)
            order.append("saved")
        with StoppingSignals(lambda _: None):  # in which no signal comes
            pass
    finally:
        signal.signal(number, before)
    assert order == ["noted", "saved", "requeued"]
