"""What W&B is told by its own settings, and by a process that uses it already."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb

from chela.config.settings import LoggerConfig
from chela.errors import RunError
from chela.track.wandb_run import WandbRun, open_wandb, wandb_mode
from tests.training.wandb_server import KEY

pytestmark = pytest.mark.server

AUTO = LoggerConfig("auto", "chela", None, [], 1.0, 1.0)


def test_auto_is_online_with_a_key_alone(server, here, monkeypatch, tmp_path) -> None:
    def mode() -> str:
        wandb.teardown()  # it reads the environment once
        return wandb_mode(AUTO)

    assert mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert mode() == "disabled"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY")
    assert mode() == "offline"
    host = server.url.removeprefix("http://")
    (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    assert mode() == "online"


def opened(folder: Path, group: str | None = "sweep-1", **config: Any) -> WandbRun:
    logger = dataclasses.replace(AUTO, project=None, **config)
    tags = ["listops"]
    return open_wandb(logger, "offline", folder, "one", group, tags, content={})


def test_what_wandb_is_told_by_its_own_settings_counts(here, monkeypatch, tmp_path) -> None:
    """Where the configuration leaves it open; a record keeps it for who uploads later."""
    told = {"PROJECT": "mine", "TAGS": "a,b", "RUN_GROUP": "g", "NAME": "n", "ENTITY": "team"}
    for name, value in told.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setattr(sys, "argv", ["train.py", "+hydra.job.env_set.WANDB_API_KEY=secret1"])
    run = opened(tmp_path, tags=["c"])
    assert run.place() == {
        "project": "mine",
        "entity": "team",
        "group": "g",
        "name": "n",
        "tags": ("listops", "c", "a", "b"),
    }
    run.close()
    wandb.teardown()
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert kept
    assert not any(b"secret1" in each for each in kept)


def test_a_run_that_the_process_has_already_is_left_alone(here, monkeypatch, tmp_path) -> None:
    """As in a notebook; without a server too."""
    theirs = wandb.init(project="theirs", dir=tmp_path, mode="offline")
    run = opened(tmp_path / "ours")
    assert (run.run is theirs, run.place()["project"]) == (False, "chela")
    run.close()
    logger = dataclasses.replace(AUTO, project=None)
    monkeypatch.setenv("WANDB_API_KEY", "short")
    lost = open_wandb(logger, "online", tmp_path / "lost", "two", None, [], content={})
    assert "chela upload" in str(lost.notice)
    theirs.log({"x": 1})
    assert wandb.run is theirs
    theirs.finish()


@pytest.mark.parametrize(
    "variable, value", [("WANDB_MODE", "foo"), ("WANDB_PROJECT", "a/b"), ("WANDB_TAGS", ",,x")]
)
def test_a_setting_that_wandb_refuses_is_one_message(
    here: None, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(RunError, match=r"refuses its own settings: .*\n  try: another value"):
        wandb_mode(AUTO)
