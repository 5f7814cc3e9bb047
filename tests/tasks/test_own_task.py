"""The task that docs/tasks.md tells to copy: prepared, tested and trained as a user would."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import tasks
from chela.commands import start
from tests.conftest import TINY
from tests.documented import blocks

DOCUMENT = ("docs/tasks.md", "A task of one's own")


@pytest.fixture
def parity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The documented module, as if it lay in ``tasks/``."""
    code, _ = blocks(*DOCUMENT, "python")
    (tmp_path / "parity.py").write_text(code)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    yield importlib.import_module("tasks.parity")
    del sys.modules["tasks.parity"], tasks.parity


def test_its_tests_pass(parity, tmp_path: Path) -> None:
    _, code = blocks(*DOCUMENT, "python")
    names: dict = {}
    exec(code, names)
    tests = [each for name, each in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test(tmp_path / test.__name__)


@pytest.mark.training
def test_it_trains_from_a_folder_of_ones_own(tmp_path: Path, monkeypatch, capsys) -> None:
    code, _ = blocks(*DOCUMENT, "python")
    (text,) = blocks(*DOCUMENT, "yaml")
    (tmp_path / "my" / "configs" / "task").mkdir(parents=True)
    (tmp_path / "my" / "parity.py").write_text(code)
    moved = text.replace("_target_: tasks.parity", "_target_: parity")
    (tmp_path / "my" / "configs" / "task" / "parity.yaml").write_text(moved)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("my")
    chosen = [each for each in TINY if not each.startswith("task")]
    words = ["task=parity", "--config-dir=my/configs", *chosen, "task.num_train=64"]
    monkeypatch.setattr(sys, "argv", ["chela", "train", *words, "trainer.max_steps=2"])
    start("train", sys.argv[2:])
    del sys.modules["parity"]
    assert list(tmp_path.glob("data/parity/generated-*/train.arrow"))
    (file,) = tmp_path.glob("outputs/parity-chela-*/seed0/record.json")
    git = json.loads(file.read_text())["git"]
    if git["commit"]:  # which does not have the task
        assert git["dirty"]
        assert str(tmp_path / "my" / "parity.py") in git["untracked"]
    assert "there is no recipe for task=parity model=chela" in capsys.readouterr().out


def test_the_file_states_the_defaults_of_the_code(parity) -> None:
    (text,) = blocks(*DOCUMENT, "yaml")
    values = OmegaConf.to_container(OmegaConf.create(text))
    assert values.pop("_target_") == "tasks.parity.Parity"
    assert parity.ParityConfig(**values) == parity.ParityConfig()
