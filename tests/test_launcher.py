"""Cells of a sweep in processes of their own: where they run, and whatever ends one of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chela.errors import ConfigError
from chela.launcher import ProcessLauncher, Slots, ending, visible_gpus
from chela.records.state import run_folders, run_state
from chela.records.sweeps import read_cells
from tests.conftest import ROOT, TINY
from tests.test_commands import train

AT_ONCE = ["hydra/launcher=processes", "hydra.launcher.at_once=2"]


def test_cells_take_the_emptiest_gpu_and_wait_for_one() -> None:
    slots = Slots(["4", "7"], at_once=2)
    assert [slots.take(1) for _ in range(4)] == [["4"], ["7"], ["4"], ["7"]]
    assert slots.take(1) is None
    slots.give(["7"])
    assert slots.take(2) is None  # not one GPU twice
    assert slots.take(1) == ["7"]


def test_a_cell_on_several_gpus_takes_a_slot_on_each() -> None:
    slots = Slots(["0", "1", "2"], at_once=1)
    assert slots.take(2) == ["0", "1"]
    assert slots.take(1) == ["2"]
    slots.give(["0", "1"])
    slots.give(["2"])
    assert slots.take(5) == ["0", "1", "2"]  # all there are; the run says that they are too few


def test_without_gpus_the_cpu_is_the_place_of_all() -> None:
    slots = Slots([], at_once=2)
    assert [slots.take(devices) for devices in (1, 4, 1)] == [["CPU"], ["CPU"], None]


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [
        (None, 2, ["0", "1"]),
        ("4,7", 2, ["4", "7"]),
        ("GPU-a,GPU-b", 2, ["GPU-a", "GPU-b"]),
        ("", 0, []),
        (None, 0, []),
    ],
)
def test_gpus_are_those_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, expected: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == expected


@pytest.mark.parametrize("value", [0, -1, "two", None])
def test_at_once_is_a_number_from_one_up(value: object) -> None:
    with pytest.raises(ConfigError, match=r"hydra.launcher.at_once=.* from 1 up"):
        ProcessLauncher(value)  # type: ignore[arg-type]


def test_how_a_process_ended() -> None:
    assert ending(-signal.SIGKILL) == "killed by SIGKILL"
    assert ending(128 + signal.SIGTERM) == "stopped by SIGTERM"
    assert ending(1) == "ended with status 1"


def test_what_cannot_be_run_is_one_message(tmp_path: Path) -> None:
    place = f"output_dir={tmp_path}"
    for wrong, part in [("hydra.launcher.at_once=0", "from 1 up"), ("model.dept=1,2", "depth")]:
        result = train("-m", *TINY, *AT_ONCE, place, wrong)
        assert result.returncode == 1
        assert part in result.stderr
        assert "Traceback" not in result.stderr
    assert not list(run_folders(tmp_path))


def begin(place: Path, data: Path, steps: int, seeds: str) -> subprocess.Popen[str]:
    long = [f"trainer.max_steps={steps}", f"trainer.validate_every_steps={steps}", f"seed={seeds}"]
    return subprocess.Popen(
        [
            *(sys.executable, "train.py", "-m", *TINY, *AT_ONCE, *long),
            *(f"data_dir={data}", f"output_dir={place}"),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def both_train(place: Path) -> Callable[[], bool]:
    return lambda: len(list(place.glob("*/seed?/metrics.csv"))) == 2


def statuses(place: Path) -> list[str]:
    return [run_state(folder).status for folder in sorted(run_folders(place))]


def pid_of(place: Path, seed: int) -> int:
    """The process of a cell, by its command."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"output_dir={place}".encode() in command and f"seed={seed}".encode() in command:
            return int(folder.name)
    raise AssertionError("there is no such process")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_every_cell_save_itself(
    number: signal.Signals, tmp_path: Path, shared_data: Path
) -> None:
    sweep = begin(tmp_path, shared_data, 400_000, "0,1,2")
    wait_for(both_train(tmp_path))
    sweep.send_signal(number)  # to it alone, as a batch system does
    output, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 128 + number
    assert f"stopped by {number.name}; to go on, repeat the command" in output
    assert statuses(tmp_path) == ["interrupted", "interrupted"]  # the third has not begun
    for file in tmp_path.glob("*/seed?/record.json"):
        assert json.loads(file.read_text())["training"]["steps"] > 0
    (folder,) = tmp_path.glob("sweeps/*")
    assert [cell.error for cell in read_cells(folder).values()] == [None, None]


@pytest.mark.slow
def test_a_cell_that_is_killed_leaves_the_others_alone(tmp_path: Path, shared_data: Path) -> None:
    sweep = begin(tmp_path, shared_data, 2_000, "0,1")
    wait_for(both_train(tmp_path))
    os.kill(pid_of(tmp_path, 1), signal.SIGKILL)
    output, _ = sweep.communicate(timeout=180)
    assert sweep.returncode == 1
    assert "seed=1: failed" in output
    assert "killed by SIGKILL; see " in output
    assert statuses(tmp_path) == ["finished", "died"]
    (folder,) = tmp_path.glob("sweeps/*")
    (log,) = folder.glob("cells/000001.log")
    assert "2,000 steps of" in log.read_text()  # what it printed until then


@pytest.mark.slow
def test_cells_save_themselves_when_the_sweep_is_killed(tmp_path: Path, shared_data: Path) -> None:
    sweep = begin(tmp_path, shared_data, 400_000, "0,1")
    wait_for(both_train(tmp_path))
    sweep.kill()
    sweep.wait()
    wait_for(lambda: statuses(tmp_path) == ["interrupted", "interrupted"])
