"""One sweep, any number of processes: each takes the next cell that nobody runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from chela.launch import turns
from chela.launch.sweep import SweepCallback
from chela.launch.turns import FOLDER, TurnLauncher, Turns
from chela.records.state import lease_of
from chela.records.sweeps import NAME, Plan, SweepCell, write_cell, write_plan
from tasks.lease import hold
from tests.test_lease import ELSEWHERE, write

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


def test_what_others_ended_since_is_not_begun_again(folder: Path) -> None:
    write_cell(folder, 0, cell(0, best=0.5))  # before: it is shown
    given = Turns(folder, CELLS, 0)
    write_cell(folder, 1, cell(1, best=0.5))
    write_cell(folder, 2, cell(2, error="out of luck"))
    assert [each and each.number for each in (given.next(), given.next())] == [0, None]
    assert not given.waiting
    assert [each.return_value for each in given.returned()[:2]] == [0.5, 0.5]
    assert math.isnan(given.returned()[2].return_value)


def test_a_cell_without_a_word_waits_again(folder: Path) -> None:
    given = Turns(folder, CELLS, 0)
    first = given.next()
    assert first is not None
    assert given.put_back(first)
    write_cell(folder, 1, cell(1, best=0.5))
    second = given.next()
    assert second is not None
    assert second.number == 2


def test_the_silent_are_waited_for_and_their_cells_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that ran the second cell is gone; another process is at the third."""
    monkeypatch.setenv(FOLDER, str(folder))
    for number in (1, 2):
        write_cell(folder, number, cell(number))
    silent = write(run_of(folder, 1), ELSEWHERE, age=60)
    ran: list[int] = []

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
    launcher = TurnLauncher()
    with hold(run_of(folder, 2)):
        returned = launcher.launch(CELLS, 0)
    assert ran == [0, 1]
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
