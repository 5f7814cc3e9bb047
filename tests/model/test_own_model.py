"""The mixer that docs/models.md tells to copy: it keeps what it promises."""

from __future__ import annotations

import importlib
import inspect
import itertools
import shutil
import sys
from pathlib import Path

import pytest
import test_baselines as shared
from baseline_variants import BASELINES, LOCAL
from hydra import compose, initialize_config_dir

import chela.mixers
from chela.training.run import run
from tests.conftest import ROOT, TINY
from tests.documented import blocks

DOCUMENT = ("docs/models.md", "A model of one's own")
OF_THE_MIXER = ["model.mixer.qk_dim=8", "model.mixer.num_heads=2", "model=chela"]  # CHELA's


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The documented module, as if it lay in ``chela/mixers/``."""
    (code,) = blocks(*DOCUMENT, "python")
    (tmp_path / "mine.py").write_text(code)
    places = [*chela.mixers.__path__, str(tmp_path)]
    monkeypatch.setattr(chela.mixers, "__path__", places)
    module = importlib.import_module("chela.mixers.mine")
    yield module
    del sys.modules["chela.mixers.mine"], chela.mixers.mine


def test_it_passes_the_tests_that_all_share(mine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASELINES, "mine", (mine.MyMixer, {"width": 3}))
    monkeypatch.setattr(shared, "LOCAL", {*LOCAL, "mine"})
    passed = 0
    for test in [each for name, each in vars(shared).items() if name.startswith("test_")]:
        marks = {each.args[0]: each.args[1] for each in getattr(test, "pytestmark", [])}
        if marks.get("name") is not BASELINES:
            continue
        wanted = inspect.signature(test).parameters
        rest = [key for key in wanted if key != "name"]
        for values in itertools.product(*(marks[key] for key in rest)):
            test(name="mine", **dict(zip(rest, values, strict=True)))
            passed += 1
    assert passed > 10


def test_a_local_mixer_that_is_not_named_so_is_found(mine, monkeypatch) -> None:
    monkeypatch.setitem(BASELINES, "mine", (mine.MyMixer, {"width": 3}))
    with pytest.raises(AssertionError):
        shared.test_outputs_see_all_they_may_see("mine", causal=False)


def test_its_file_trains(mine, tmp_path: Path, shared_data: Path) -> None:
    (text,) = blocks(*DOCUMENT, "yaml")
    configs = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", configs)
    (configs / "model" / "mine.yaml").write_text(text)
    places = [f"data_dir={shared_data}", f"output_dir={tmp_path}/outputs"]
    chosen = [each for each in TINY if each not in OF_THE_MIXER]
    with initialize_config_dir(str(configs), version_base="1.3"):
        overrides = ["model=mine", "model.mixer.width=5", "trainer.max_steps=2"]
        config = compose("config", [*chosen, *places, *overrides])
    assert 0 <= run(config) <= 1
    assert list(tmp_path.glob("outputs/listops-mine-*/seed0/record.json"))
