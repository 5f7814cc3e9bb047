"""The task that docs/tasks.md tells to copy: prepared, tested and trained as a user would."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import tasks
from chela.training.run import run
from tests.conftest import ROOT, TINY
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


def test_it_trains(parity, tmp_path: Path) -> None:
    (text,) = blocks(*DOCUMENT, "yaml")
    configs = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", configs)
    (configs / "task" / "parity.yaml").write_text(text)
    chosen = [each for each in TINY if not each.startswith("task")]
    places = [f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/outputs"]
    with initialize_config_dir(str(configs), version_base="1.3"):
        overrides = ["task=parity", "task.num_train=64", "trainer.max_steps=2"]
        config = compose("config", [*chosen, *places, *overrides])
    assert 0 <= run(config) <= 1
    assert list(tmp_path.glob("data/parity/generated-*/train.arrow"))
    (file,) = tmp_path.glob("outputs/parity-chela-*/seed0/record.json")
    git = json.loads(file.read_text())["git"]
    if git["commit"]:  # which does not have the task
        assert git["dirty"]
        assert str(tmp_path / "parity.py") in git["untracked"]


def test_the_file_states_the_defaults_of_the_code(parity) -> None:
    (text,) = blocks(*DOCUMENT, "yaml")
    values = OmegaConf.to_container(OmegaConf.create(text))
    assert values.pop("_target_") == "tasks.parity.Parity"
    assert parity.ParityConfig(**values) == parity.ParityConfig()
