"""A sweep goes on when a cell fails, says so at the end, and continues when it is repeated."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf
from rich.console import Console

from chela.config.choices import hydra_with
from chela.config.schema import parse
from chela.errors import ConfigError
from chela.launch.cli import plain_errors
from chela.launch.sweep import (
    SweepCallback,
    _name,
    planned_cells,
    refuse_several_devices,
)
from chela.launch.turns import FOLDER
from chela.records.progress import cells_table
from chela.records.sweeps import (
    NAME,
    Plan,
    SweepCell,
    read_cells,
    read_plan,
    write_cell,
    write_plan,
)
from chela.training import build
from tasks.base import TaskSpec
from tests.conftest import ROOT, TINY
from tests.records.samples import record, save
from tests.test_commands import train
from tests.test_launcher import AT_ONCE


@pytest.mark.training
def test_a_cell_that_fails_does_not_stop_the_others(
    command, tmp_path: Path, shared_data: Path
) -> None:
    places = [f"data_dir={shared_data}", f"output_dir={tmp_path}"]
    sweep = ["-m", *TINY, *places, "model.mixer.num_heads=3,2"]
    result = command("train", *sweep)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "1 of 2 cells failed" in result.stdout
    assert "set qk_dim=9" in result.stdout
    assert "majority class" in result.stdout
    (file,) = tmp_path.glob("*/seed0/record.json")
    assert json.loads(file.read_text())["status"] == "finished"
    assert {each.name for each in tmp_path.iterdir()} == {"sweeps", file.parts[-3]}
    again = command("train", *sweep)
    assert again.returncode == 1
    assert again.stdout.count("is finished") == 1
    assert "majority class" not in again.stdout  # a line for each, and the sweep's own table


@pytest.mark.process
def test_cells_started_in_the_same_second_do_not_collide(tmp_path: Path, shared_data: Path) -> None:
    """Two processes at once, each its own folder and W&B run, both in the group of the sweep."""
    places = [f"data_dir={shared_data}", f"output_dir={tmp_path}"]
    cells = ["seed=0,1,-1"]  # the last one fails
    # processes of their own, here to generate data that are not there yet, start as ever
    generating = ["task.workers=2", "task.data_seed=7"]
    sweep = ["-m", *AT_ONCE, *TINY, *cells, *generating, *places, "logger=wandb"]
    result = train(*sweep, WANDB_MODE="offline", OMP_NUM_THREADS="1")
    assert result.returncode == 1
    assert "1 of 3 cells failed" in result.stdout
    assert "Traceback" not in result.stderr
    records = [
        json.loads(file.read_text()) for file in sorted(tmp_path.glob("*/seed?/record.json"))
    ]
    assert [record["config"]["seed"] for record in records] == [0, 1]
    assert [record["status"] for record in records] == ["finished", "finished"]
    assert len({record["wandb_id"] for record in records}) == 2
    run, other = (file.parent for file in tmp_path.glob("*/seed?/record.json"))
    assert set(tmp_path.iterdir()) == {tmp_path / "sweeps", run.parent, other.parent}
    offline = sorted(tmp_path.glob("*/seed?/wandb/offline-run-*/run-*.wandb"))
    assert [file.stem.removeprefix("run-") for file in offline] == [r["wandb_id"] for r in records]
    (folder,) = (tmp_path / "sweeps").iterdir()
    assert all(folder.name.encode() in file.read_bytes() for file in offline)  # the group


@pytest.mark.training
def test_the_plan_is_what_runs(command, tmp_path: Path, shared_data: Path) -> None:
    places = [f"data_dir={shared_data}", f"output_dir={tmp_path}"]
    result = command(
        "train", "-m", "seed=3,0", *TINY, *places, "model.dropout=0,0.5", "trainer.max_steps=1"
    )
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "sweeps").iterdir()
    plan, cells = read_plan(folder), read_cells(folder)
    assert plan is not None
    assert plan.cells == [cell.overrides for cell in cells.values()]
    assert len(plan.cells) == 4
    for cell in cells.values():
        run = folder / str(cell.folder)
        assert run.name in [each.replace("=", "") for each in cell.overrides]
        assert json.loads((run / "record.json").read_text())["best"]["value"] == cell.best


def test_a_mistake_in_the_overrides_is_one_message(command, tmp_path: Path) -> None:
    result = command("train", "-m", "seed=0,1", "model.dpth=1", f"output_dir={tmp_path}")
    assert result.returncode == 1
    assert "Did you mean 'depth'" in result.stderr
    assert not list(tmp_path.glob("sweeps/*/cells"))


def cells_of(*overrides: str) -> list[list[str]]:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return planned_cells(loader.load_configuration("config", list(overrides), RunMode.MULTIRUN))


def test_a_sweep_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to run"):
        cells_of("seed=glob(*)")


def test_the_table_shows_what_varies(tmp_path: Path) -> None:
    file = save(tmp_path, record(accuracy=0.4375))
    cells = [
        SweepCell(["task=a", "seed=0"], os.path.relpath(file.parent, tmp_path), best=0.5),
        SweepCell(["task=a", "seed=1"], error="out of luck"),
    ]
    console = Console(width=100, record=True)
    console.print(cells_table("sweep-1", tmp_path, cells))
    shown = console.export_text()
    assert "task=a" not in shown
    for part in ("seed=0", "0.5000", "0.4375", "seed=1", "failed", "out of luck", "sweep-1"):
        assert part in shown


def test_a_damaged_plan_is_none(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    for text in ("{", "[]", '{"name": "x", "other": 1}'):
        (tmp_path / "sweep.json").write_text(text)
        assert read_plan(tmp_path) is None
    (tmp_path / "sweep.json").write_text('{"name": "x", "command": "c", "cells": [["a=1"]]}')
    assert read_plan(tmp_path) == Plan("x", "c", [["a=1"]])


def test_sizes_that_do_not_fit_are_a_message(composed) -> None:
    config = parse(composed("model.mixer.num_heads=3"))
    with pytest.raises(ConfigError, match="model=chela: qk_dim=8 is not divisible by num_heads=3"):
        build.build_model(config.model, TaskSpec("x", 2, 8, 5, 1))


def end_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *cells: SweepCell, planned: int | None = None
) -> int:
    """The exit status of a sweep whose cells ended like this."""
    monkeypatch.setenv(FOLDER, str(folder))
    monkeypatch.setenv(NAME, "sweep-1")
    plan = [[f"seed={number}"] for number in range(planned or len(cells))]
    write_plan(folder, Plan("sweep-1", "python train.py", plan))
    for number, cell in enumerate(cells):
        write_cell(folder, number, cell)
    try:
        with plain_errors():
            SweepCallback().on_multirun_end(OmegaConf.create())
    except SystemExit as ended:
        return int(str(ended.code))
    return 0


def test_a_sweep_has_failed_if_a_cell_has_whatever_its_end_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done, failed = SweepCell(["seed=0"], best=0.5), SweepCell(["seed=1"], error="no [/x] [b]here")
    assert end_of(tmp_path / "well", monkeypatch, done) == 0
    assert end_of(tmp_path / "one", monkeypatch, done, failed) == 1
    assert "no [/x] [b]here" in capsys.readouterr().out

    def full(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "report.md"))

    monkeypatch.setattr("chela.track.wandb_table.log_table", full)
    assert end_of(tmp_path / "unwritable", monkeypatch, done, failed) == 1
    shown = capsys.readouterr()
    assert "1 of 2 cells failed" in shown.out
    assert "report.md" in shown.err
    assert end_of(tmp_path / "only the table", monkeypatch, done) == 1


def test_a_cell_that_left_no_word_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_of(tmp_path, monkeypatch, SweepCell(["seed=0"], best=0.5), planned=2) == 1
    assert "left no word" in capsys.readouterr().out


def test_the_table_is_of_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One cell finished, one left no folder, one a record that cannot be read."""
    file = save(tmp_path, record(accuracy=0.4375))
    damaged = tmp_path / "damaged" / "seed0"
    shutil.copytree(file.parent, damaged)
    (damaged / "record.json").write_text("[")
    monkeypatch.setenv("WANDB_MODE", "offline")
    cells = [
        SweepCell(["task=a"], os.path.relpath(file.parent, tmp_path), best=0.5),
        SweepCell(["task=b"], "nowhere/seed0", error="no data"),
        SweepCell(["task=c"], "damaged/seed0", best=0.5),
    ]
    logged = []
    monkeypatch.setattr(
        "chela.track.wandb_table._log", lambda report, *_: logged.append(report) or "there"
    )
    monkeypatch.setattr("chela.track.wandb_table.LoggerConfig", dict)
    monkeypatch.setattr("chela.track.wandb_table.wandb_mode", lambda _: "offline")
    assert end_of(tmp_path, monkeypatch, *cells) == 1
    assert [row.name for row, _ in logged[0].ours] == ["chela"]
    assert "0.4375" in capsys.readouterr().out


@pytest.mark.parametrize("hook", ["on_multirun_start", "on_job_start", "on_job_end"])
def test_what_cannot_be_kept_ends_a_sweep(
    hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra alone would warn, go on without the sweep's files, and exit with 0."""
    place = tmp_path / "file"
    place.write_text("")
    monkeypatch.setenv(FOLDER, str(place / "sweeps" / "x"))
    monkeypatch.setenv(NAME, "x")
    runtime = {"cwd": str(Path.cwd()), "choices": {}}
    target = "hydra._internal.core_plugins.other.OtherSweeper"
    config = OmegaConf.create(
        {
            "hydra": {
                "sweep": {"dir": str(place)},
                "runtime": runtime,
                "overrides": {"task": []},
                "sweeper": {"_target_": target, "params": None},
                "job": {"num": 0},
            }
        }
    )
    result = SimpleNamespace(status=JobStatus.COMPLETED, return_value=0.5)
    with pytest.raises(SystemExit) as ended, plain_errors():
        getattr(SweepCallback(), hook)(config, job_return=result)
    assert ended.value.code == 1


def test_a_folder_of_sweeps_is_a_part_of_the_name() -> None:
    section = {"runtime": {"choices": {"sweep": "mine/table"}, "config_sources": []}}
    assert _name(OmegaConf.create({"hydra": section}), [["seed=0"]]).startswith("mine-table-")


def begun(*overrides: str, own: Sequence[Path] = ()) -> tuple[SweepCallback, list[list[str]]]:
    """A sweep that has begun, whose folder the environment names; and its cells."""
    callback = SweepCallback()
    with hydra_with(own):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)
        callback.on_multirun_start(config)
        return callback, planned_cells(config)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a sweep sets, put back after the test."""
    for name in (FOLDER, NAME):
        monkeypatch.setenv(name, "")


@pytest.mark.usefixtures("environment")
def test_a_number_in_the_folder_of_a_sweep_is_one_cell(tmp_path: Path) -> None:
    """Of two processes at once, whose words may stand in another order."""
    place, sweeps, folders = f"output_dir={tmp_path}", [], []
    for words in (
        "seed=0,1 model=chela,s4d",
        "model=chela,s4d seed=0,1",
        "seed=range(2) model=chela,s4d",
    ):
        sweep, cells = begun(*words.split(), place)
        sweeps.append(sweep)  # each holds its folder
        folders.append(Path(os.environ[FOLDER]))
        plan = read_plan(folders[-1])
        assert plan is not None and plan.cells == cells
    assert folders[0] == folders[2] != folders[1]


@pytest.mark.usefixtures("environment")
def test_the_same_words_with_other_files_are_another_sweep(tmp_path: Path) -> None:
    """Two of them at once would keep their cells in one folder."""
    given, folders = [(), (tmp_path / "a",), (tmp_path / "b",), (tmp_path / "a",)], []
    for own in given:
        for folder in own:
            folder.mkdir(exist_ok=True)
        begun("seed=0,1", f"output_dir={tmp_path}", own=own)
        folders.append(os.environ[FOLDER])
    assert folders[1] == folders[3]
    assert len(set(folders)) == 3


@pytest.mark.parametrize("given", ["seed=0,range(3,5)", "seed=range(0,1),choice(3,4)"])
def test_a_list_within_a_list_is_told_what_to_type(given: str) -> None:
    with pytest.raises(ConfigError, match=r"seed=0,3,4$"):
        cells_of(given)


@pytest.mark.usefixtures("environment")
def test_a_long_sweep_says_what_it_does_before_it_begins(tmp_path: Path, capsys) -> None:
    begun("seed=range(0,200)", f"output_dir={tmp_path}")
    assert ": composing the configurations of 200 cells ..." in capsys.readouterr().out


@pytest.mark.parametrize("mode", [RunMode.RUN, RunMode.MULTIRUN])
@pytest.mark.parametrize("devices", [1, 2])
def test_a_cell_on_several_devices_needs_a_process_of_its_own(
    mode: RunMode, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it would start has the sweep's command, and would begin all of it."""
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: SimpleNamespace(mode=mode))
    asked = OmegaConf.create({"trainer": {"devices": devices}})
    if mode == RunMode.MULTIRUN and devices > 1:
        with pytest.raises(ConfigError, match=r"trainer.devices=2(.|\n)*hydra/launcher=processes"):
            refuse_several_devices(asked)
    else:
        refuse_several_devices(asked)
