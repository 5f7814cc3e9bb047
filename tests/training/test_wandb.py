"""W&B, spoken with a server on this machine: what the server gets, and what it cannot stop."""

from __future__ import annotations

import csv
import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb

from chela.commands import upload
from chela.config.schema import parse
from chela.errors import RunError
from chela.records.record import read_record
from chela.training.folder import RunFolder
from chela.training.run import run
from tests.conftest import ROOT, TINY
from tests.training.test_resume import signal_at, without_speed
from tests.training.wandb_server import StoredRun

pytestmark = pytest.mark.server

LONG = [  # some seconds, for rows are sent once a second
    "trainer.max_steps=300",
    "trainer.validate_every_steps=100",
    "trainer.log_every_steps=10",
    "trainer.checkpoint_every_steps=10",
]


@pytest.fixture
def places(tmp_path: Path, shared_data: Path) -> list[str]:
    return [f"data_dir={shared_data}", f"output_dir={tmp_path / 'outputs'}"]


def start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """What it printed."""
    out, error = process.communicate(timeout=180)
    assert process.returncode == status, out + error
    assert "Traceback" not in error
    return out


def call(arguments: list[str], environment: dict[str, str]) -> str:
    return finish(start(arguments, environment))


def do_as_told(shown: str, environment: dict[str, str]) -> str:
    """Run the command that uploads, as the run printed it."""
    (command,) = re.findall(r"(?:to upload it:|upload with) (.+?)$", shown, re.MULTILINE)
    program, *arguments = shlex.split(command)
    return call(["-m", program, *arguments], environment)


def logged(stored: StoredRun) -> list[dict[str, float]]:
    """The server's rows as ``metrics.csv`` has them."""
    return [
        {"step": row["_step"], **{k: v for k, v in row.items() if not k.startswith("_")}}
        for row in stored.history
    ]


def written(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def assert_complete(
    stored: StoredRun, folder: Path, seen: Callable[[list], list] = lambda rows: rows
) -> None:
    """The server has the run as its folder has it: each row once, the final numbers, its end."""
    record = read_record(folder)
    assert record is not None
    assert record["status"] == "finished"
    assert seen(logged(stored)) == seen(written(folder))
    assert stored.summary["test/accuracy"] == record["test"]["metrics"]["accuracy"]["value"]
    assert stored.summary["best/step"] == record["best"]["step"]
    assert stored.summary["val/loss"] == record["metrics"][-1]["val/loss"]
    assert stored.config["model"]["value"] == record["config"]["model"]
    assert stored.exit_code == 0


def test_a_sweep_is_a_run_per_cell_and_one_with_the_table(
    server, environment, places, tmp_path
) -> None:
    command = ["train.py", "-m", "seed=0,1", *TINY, "logger=wandb", *places]
    shown = call(command, environment)
    folders = sorted(tmp_path.glob("outputs/*/seed?"))
    records = [read_record(folder) for folder in folders]
    assert [record["wandb_mode"] for record in records] == ["online", "online"]
    cells = [server.runs[record["wandb_id"]] for record in records]
    assert len({cell.name for cell in cells}) == 2
    for cell, folder in zip(cells, folders, strict=True):
        assert_complete(cell, folder)
        assert cell.tags == ["listops", "chela", "heldout"]
        assert f"W&B        online ({server.url}/tester/chela/runs/{cell.name})" in shown
    (sweep,) = {cell.group for cell in cells}
    assert re.fullmatch("sweep-[0-9a-f]{8}", sweep)
    assert server.runs.keys() == {*(cell.name for cell in cells), f"{sweep}-report"}
    report = server.runs[f"{sweep}-report"]
    assert (report.group, report.job_type, report.exit_code) == (sweep, "report", 0)
    folder = tmp_path / "outputs" / "sweeps" / sweep
    assert f"/runs/{report.name})\nits files: {folder}\n" in shown
    table = json.loads(report.files[report.summary["table"]["path"]])
    assert table["columns"][0] == "model"
    ((model, cell),) = table["data"]
    accuracies = [100 * record["test"]["metrics"]["accuracy"]["value"] for record in records]
    mean = sum(accuracies) / 2
    std = abs(accuracies[0] - accuracies[1]) / 2**0.5
    assert (model, cell) == ("chela", f"{mean:.2f} ± {std:.2f} (2)")
    (artifact,) = [each for each in server.artifacts if each.kind == "report"]
    assert (artifact.run, artifact.committed) == (report.name, True)
    for suffix in ["md", "csv", "html", "tex", "png"]:
        file = folder / f"report.{suffix}"
        assert artifact.files[file.name] == file.read_bytes()
    before = {name: run.upserts for name, run in server.runs.items()}
    assert call(command, environment).count("is finished") == 2
    after = {name: run.upserts for name, run in server.runs.items()}
    assert {name for name in after if after[name] != before.get(name)} == {report.name}


def test_a_run_that_goes_on_is_the_same_run(server, environment, places, tmp_path) -> None:
    """Killed without warning: one run with each step once."""
    command = ["train.py", *TINY, *LONG, "logger=wandb", *places]
    process = start(command, environment)
    assert server.rows_came.wait(180)
    process.kill()
    finish(process, -signal.SIGKILL)
    (stored,) = server.runs.values()
    came = len(stored.lines)
    call(command, environment)
    assert list(server.runs) == [stored.name]
    assert 0 < came < len(stored.lines) == 30
    (folder,) = tmp_path.glob("outputs/*/seed0")
    # the steps after the last checkpoint were trained twice: the same, but for the clock
    assert_complete(stored, folder, without_speed)


def test_a_server_that_dies_stops_no_training(server, environment, here, places, tmp_path) -> None:
    server.dies_with_history = True
    command = ["train.py", *TINY, *LONG, "logger=wandb", "logger.finish_timeout=1", *places]
    shown = call(command, environment)
    assert server.died.is_set()
    (stored,) = server.runs.values()
    (folder,) = tmp_path.glob("outputs/*/seed0")
    assert [row["step"] for row in written(folder)] == list(range(10, 301, 10))
    assert 0 < len(stored.lines) < 30
    server.start()
    assert f"{folder}: online" in do_as_told(shown, environment)
    assert_complete(stored, folder)
    lines = list(stored.lines)
    upload.main([str(folder)])
    assert stored.lines == lines


def test_a_server_that_comes_back_gets_everything(server, environment, places, tmp_path) -> None:
    server.dies_with_history = True
    process = start(["train.py", *TINY, *LONG, "logger=wandb", *places], environment)
    assert server.died.wait(180)
    (stored,) = server.runs.values()
    assert 0 < len(stored.lines) < 30
    server.start()
    assert "to upload it" not in finish(process)
    (folder,) = tmp_path.glob("outputs/*/seed0")
    assert_complete(stored, folder)


def test_a_server_that_is_not_there_from_the_start(
    server, environment, here, composed, capsys, monkeypatch
) -> None:
    """Two sessions without it; the first is interrupted."""
    server.die()
    config = composed("logger=wandb", "logger.start_timeout=1")
    with monkeypatch.context() as patch:
        signal_at(patch, 6, signal.SIGTERM)
        with pytest.raises(SystemExit):
            run(config)
    run(config)
    shown = capsys.readouterr().out
    assert shown.count("W&B cannot be reached, so this run is logged offline (") == 2
    assert "connection refused" in shown
    assert shown.count("W&B does not have all of this run; to upload it: ") == 1
    folder = RunFolder(parse(config)).path
    assert read_record(folder)["wandb_mode"] == "offline"
    server.start()
    do_as_told(shown, environment)
    (stored,) = server.runs.values()
    assert_complete(stored, folder)


@pytest.mark.parametrize("step", [6, 12])  # in the middle, and where only the test is left
def test_offline_the_last_session_holds_the_whole_run(
    server, environment, here, composed, capsys, monkeypatch, step
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = composed("logger=wandb")
    with monkeypatch.context() as patch:
        signal_at(patch, step, signal.SIGTERM)
        with pytest.raises(SystemExit):
            run(config)
    run(config)
    assert server.runs == {}
    shown = capsys.readouterr().out
    assert shown.count("W&B: offline; upload with wandb sync") == 1
    assert shown.index("W&B: offline; upload with") < shown.index("test accuracy")
    assert "W&B does not have" not in shown
    do_as_told(shown, environment)
    (stored,) = server.runs.values()
    assert_complete(stored, RunFolder(parse(config)).path)


@pytest.mark.parametrize(("key", "reason"), [("9" * 40, "invalid API key"), ("short", "40")])
def test_a_wrong_key(server, here, composed, capsys, monkeypatch, key, reason) -> None:
    """Goes on offline, unless online was asked for outright."""
    monkeypatch.setenv("WANDB_API_KEY", key)
    with pytest.raises(RunError, match=rf"W&B cannot be reached: .*{reason}(.|\n)*wandb login"):
        run(composed("logger=wandb", "logger.wandb=online", "logger.start_timeout=5"))
    config = composed("logger=wandb", "logger.start_timeout=5")
    run(config)
    assert reason in capsys.readouterr().out
    record = read_record(RunFolder(parse(config)).path)
    assert (record["status"], record["wandb_mode"]) == ("finished", "offline")
    assert server.runs == {}


def test_rows_that_the_server_refuses_are_said_and_kept(
    server, environment, here, composed, capsys
) -> None:
    server.refuses_history = True
    config = composed("logger=wandb")
    run(config)
    shown = capsys.readouterr().out
    server.refuses_history = False
    do_as_told(shown, environment)
    (stored,) = server.runs.values()
    assert_complete(stored, RunFolder(parse(config)).path)


def test_a_process_of_wandb_that_dies_stops_no_training(here, composed, monkeypatch, capsys):
    config = composed("logger=wandb")

    def broken(*_: Any, **__: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(wandb.Run, "log", broken)
    run(config)
    folder = RunFolder(parse(config)).path
    assert read_record(folder)["status"] == "finished"
    assert f"to upload it: chela upload {folder}" in capsys.readouterr().out


def test_offline_a_sweep_leaves_its_table_to_be_sent(server, environment, places) -> None:
    """That each cell is a run of its own there: tests/test_sweep.py."""
    without = {name: value for name, value in environment.items() if name != "WANDB_API_KEY"}
    command = ["train.py", "-m", "seed=0,1", *TINY, "logger=wandb", *places]
    shown = call(command, without)
    assert server.runs == {}
    (line,) = [line for line in shown.splitlines() if line.startswith("the sweep's table")]
    do_as_told(line, environment)
    (report,) = server.runs.values()
    assert (report.name, report.job_type) == (f"{report.group}-report", "report")
    assert any(each.kind == "report" and each.committed for each in server.artifacts)


def test_upload_says_that_there_is_no_server(server, here, composed, tmp_path, monkeypatch) -> None:
    run(composed())
    server.die()
    monkeypatch.setattr(upload, "START", 0.5)
    with pytest.raises(RunError, match=r"W&B cannot be reached: .*connection refused"):
        upload.main([str(tmp_path / "outputs")])


def test_upload_sends_of_a_run_that_stopped_what_cannot_change(
    server, here, composed, tmp_path, monkeypatch, capsys
) -> None:
    config = composed("trainer.validate_every_steps=8")
    with monkeypatch.context() as patch:
        signal_at(patch, 8, signal.SIGTERM)
        with pytest.raises(SystemExit):
            run(config)
    upload.main([str(tmp_path / "outputs")])
    (stored,) = server.runs.values()
    assert [row["step"] for row in logged(stored)] == [4]
    assert (stored.preempted, stored.exit_code) == (True, 143)
    run(composed("trainer.validate_every_steps=8", "logger=wandb"))
    assert_complete(stored, RunFolder(parse(config)).path)
