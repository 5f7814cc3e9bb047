"""Cells of a sweep in processes of their own: where they run, and whatever ends one of them."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from chela.errors import ConfigError
from chela.launch.launcher import ProcessLauncher, ending
from chela.launch.places import Slots, visible_gpus, warning_of
from chela.launch.turns import FOLDER
from chela.records.state import run_folders, run_state
from chela.records.sweeps import SweepCell, log_file, read_cells, write_cell
from tasks.screen import Screen
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


def test_cells_that_would_take_turns_on_a_gpu_are_spoken_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert "cells that share a GPU take turns" in str(warning_of(["0", "1"], 3))  # or one cell does
    assert warning_of(["0", "1"], 1) is warning_of([], 3) is None
    (tmp_path / "control").touch()  # the daemon's
    assert warning_of(["0"], 3) is None


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


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (-signal.SIGKILL, "killed by SIGKILL"),
        (128 + signal.SIGTERM, "stopped by SIGTERM"),
        (1, "ended with status 1"),
        (255, "ended with status 255"),
        (-40, "ended with status -40"),
    ],
)
def test_how_a_process_ended(status: int, words: str) -> None:
    assert ending(status) == words


Launch = Callable[[str, int], ProcessLauncher]


@pytest.fixture
def launcher_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """A launcher whose cells are a few lines of Python instead of runs."""

    def make(script: str, at_once: int) -> ProcessLauncher:
        monkeypatch.setenv(FOLDER, str(tmp_path))
        monkeypatch.setattr("chela.launch.launcher.visible_gpus", list)
        launcher = ProcessLauncher(at_once)
        composed = OmegaConf.create({"trainer": {"devices": 1}})
        loader = SimpleNamespace(load_sweep_config=lambda config, overrides: composed)
        config = OmegaConf.create({"hydra": {"overrides": {"hydra": []}}})
        context = SimpleNamespace(config_loader=loader)
        launcher.setup(hydra_context=context, task_function=None, config=config)
        monkeypatch.setattr(launcher, "_command", lambda: [sys.executable, "-c", script])
        return launcher

    return make


SAVES_WHAT_IT_REACHED = """
import json, sys
from pathlib import Path
number = sys.argv[-1].partition("=")[2]
file = Path(%r, "cells", f"{int(number):06d}.json")
file.write_text(json.dumps({"overrides": sys.argv[1:-1], "best": 0.5 + int(number) / 10}))
"""


def test_what_cells_reached_is_returned(launcher_of: Launch, tmp_path: Path) -> None:
    returned = launcher_of(SAVES_WHAT_IT_REACHED % str(tmp_path), 2).launch([["a=1"], ["a=2"]], 3)
    assert [result.return_value for result in returned] == pytest.approx([0.8, 0.9])
    assert [list(result.overrides) for result in returned] == [["a=1"], ["a=2"]]


@pytest.mark.parametrize("status", [0, 1, 255])
def test_a_cell_that_ends_without_a_word_has_failed(
    launcher_of: Launch, tmp_path: Path, status: int
) -> None:
    write_cell(tmp_path, 0, SweepCell(["a=1"], best=0.9))  # of an earlier sweep
    script = f"print('hello'); raise SystemExit({status})"
    (result,) = launcher_of(script, 1).launch([["a=1"]], 0)
    assert math.isnan(result.return_value)
    error = read_cells(tmp_path)[0].error
    log = log_file(tmp_path, 0)
    assert error == f"ended with status {status}; see {log}"
    assert log.read_text() == "hello\n"


def test_a_cell_that_cannot_be_started_has_failed(
    launcher_of: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("too many processes")

    monkeypatch.setattr("subprocess.Popen", fail)
    launcher_of("", 1).launch([["a=1"], ["a=2"]], 0)
    errors = [cell.error for cell in read_cells(tmp_path).values()]
    assert errors == ["could not be started: too many processes"] * 2


@pytest.mark.kill
def test_a_signal_while_a_cell_is_started_reaches_it(
    launcher_of: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Signalled(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("subprocess.Popen", Signalled)
    ended = tmp_path / "ended"
    cell = f"import time; time.sleep(60); open({str(ended)!r}, 'w')"
    with pytest.raises(SystemExit) as stopped:
        launcher_of(cell, 1).launch([["a=1"], ["a=2"]], 0)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert not ended.exists()
    assert list(read_cells(tmp_path)) == [0]  # the second did not begin
    assert read_cells(tmp_path)[0].error is None


@pytest.mark.kill
def test_after_a_second_signal_cells_that_do_not_end_are_killed(
    launcher_of: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, sent = tmp_path / "ended", []
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    deaf += f"time.sleep(60); open({str(ended)!r}, 'w')"

    def send() -> None:
        sent.append(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("chela.launch.launcher.PATIENCE", 0.2)
    for seconds in (0.5, 0.6, 2.0):  # the second of them is the same request
        threading.Timer(seconds, send).start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        launcher_of(deaf, 2).launch([["a=1"], ["a=2"]], 0)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert len(sent) == 3
    assert not ended.exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_cells_go_on_when_nobody_reads(launcher_of: Launch, tmp_path: Path) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("no space left on device")

    launcher = launcher_of(SAVES_WHAT_IT_REACHED % str(tmp_path), 1)
    launcher.console = Screen(file=Full())
    assert len(launcher.launch([["a=1"], ["a=2"]], 0)) == 2
    assert [cell.best for cell in read_cells(tmp_path).values()] == [0.5, 0.6]


def test_a_cell_is_the_same_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "--config-dir", "/mine", "seed=0,1"])
    mine = ["hydra.searchpath=[file:///mine]", "hydra.verbose=true"]
    given = ["hydra/launcher=processes", "hydra.launcher.at_once=2", "hydra.mode=MULTIRUN", *mine]
    launcher = ProcessLauncher()
    config = OmegaConf.create({"hydra": {"overrides": {"hydra": given}}})
    context = SimpleNamespace(config_loader=None)
    launcher.setup(hydra_context=context, task_function=None, config=config)
    place = str(Path("train.py").absolute())
    assert launcher._command() == [sys.executable, place, "--config-dir", "/mine", *mine]


@pytest.mark.process
def test_what_cannot_be_run_is_one_message(tmp_path: Path) -> None:
    place = f"output_dir={tmp_path}"
    for wrong, part in [("hydra.launcher.at_once=0", "from 1 up"), ("model.dept=1,2", "depth")]:
        result = train("-m", *TINY, *AT_ONCE, place, wrong)
        assert result.returncode == 1
        assert part in result.stderr
        assert "Traceback" not in result.stderr
        assert "full_key" not in result.stderr
    assert not list(run_folders(tmp_path))


@pytest.fixture
def sweep(tmp_path: Path, shared_data: Path) -> Iterator[subprocess.Popen[str]]:
    """Four endless cells, two at once."""
    endless = ["trainer.max_steps=400000", "trainer.validate_every_steps=400000", "seed=0,1,2,3"]
    process = subprocess.Popen(
        [
            *(sys.executable, "train.py", "-m", *TINY, *AT_ONCE, *endless),
            *(f"data_dir={shared_data}", f"output_dir={tmp_path}"),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: trained(tmp_path) == {"seed0", "seed1"})
    yield process
    process.kill()
    for pid in pids(tmp_path):
        os.kill(pid, signal.SIGKILL)


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def trained(place: Path) -> set[str]:
    """The runs that have logged a step."""
    return {file.parent.name for file in place.glob("*/seed?/metrics.csv")}


def statuses(place: Path) -> dict[str, str]:
    return {folder.name: run_state(folder).status for folder in run_folders(place)}


def pids(place: Path, *parts: str) -> list[int]:
    """The processes in whose command ``place`` and all of ``parts`` stand."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (folder / "cmdline").read_text().split("\0")
            if {f"output_dir={place}", *parts} <= set(command):
                found.append(int(folder.name))
    return found


@pytest.mark.kill
def test_a_killed_cell_leaves_the_others_alone_and_a_signal_lets_them_save(
    sweep: subprocess.Popen[str], tmp_path: Path
) -> None:
    """What a sweep that is killed itself leaves behind is in test_sweep_killed.py."""
    (pid,) = pids(tmp_path, "seed=1")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: "seed2" in trained(tmp_path))  # its place is taken
    for pid in [sweep.pid, *pids(tmp_path, "seed=0")]:  # as a batch system does
        os.kill(pid, signal.SIGUSR1)
    output, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 128 + signal.SIGUSR1
    assert "[2] seed=1: failed" in output
    assert "stopped by SIGUSR1; to go on, repeat the command" in output
    # the fourth did not begin
    assert statuses(tmp_path) == {"seed0": "interrupted", "seed1": "died", "seed2": "interrupted"}
    for seed in (0, 2):
        (file,) = tmp_path.glob(f"*/seed{seed}/record.json")
        assert json.loads(file.read_text())["training"]["steps"] > 0
    (folder,) = tmp_path.glob("sweeps/*")
    cells = read_cells(folder)
    assert list(cells) == [0, 1, 2]
    assert cells[1].error == f"killed by SIGKILL; see {log_file(folder, 1)}"
    assert [cells[0].error, cells[2].error] == [None, None]
    assert "400,000 steps of" in log_file(folder, 1).read_text()  # what it printed until then
