"""A sweep goes on when a cell fails, says so at the end, and continues when it is repeated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from chela.config import parse
from chela.errors import ConfigError
from chela.sweep import cells_table
from chela.training import build
from tasks.base import TaskSpec
from tests.conftest import TINY
from tests.test_commands import train


def test_a_cell_that_fails_does_not_stop_the_others(tmp_path: Path, shared_data: Path) -> None:
    places = [f"data_dir={shared_data}", f"output_dir={tmp_path}"]
    sweep = ["-m", *TINY, *places, "model.mixer.num_heads=3,2", "logger=wandb"]
    result = train(*sweep, WANDB_MODE="offline")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "1 of 2 cells failed" in result.stdout
    assert "set qk_dim=9" in result.stdout
    (file,) = tmp_path.glob("*/seed0/record.json")
    assert json.loads(file.read_text())["status"] == "finished"
    again = train(*sweep, WANDB_MODE="offline")
    assert again.returncode == 1
    assert again.stdout.count("is finished") == 1


def test_the_table_shows_what_varies() -> None:
    cells = [
        {"overrides": ["task=a", "seed=0"], "best": 0.5, "error": None},
        {"overrides": ["task=a", "seed=1"], "best": None, "error": "out of luck"},
    ]
    console = Console(width=100, record=True)
    console.print(cells_table("sweep-1", cells))
    shown = console.export_text()
    assert "task=a" not in shown
    for part in ("seed=0", "0.5000", "seed=1", "failed", "out of luck", "sweep-1"):
        assert part in shown


def test_sizes_that_do_not_fit_are_a_message(composed) -> None:
    config = parse(composed("model.mixer.num_heads=3"))
    with pytest.raises(ConfigError, match="model=chela: qk_dim=8 is not divisible by num_heads=3"):
        build.build_model(config.model, TaskSpec("x", 2, 8, 5, 1))
