"""The tutorials, each block of them: files are written, commands typed, Python executed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from chela.testing import CHECKS
from tests.conftest import ROOT, TINY
from tests.documented import Reader

FEW = [each for each in TINY if each.startswith(("trainer.", "logger"))]
STEPS = [*FEW[:1], "trainer.max_steps=2", "trainer.validate_every_steps=2", *FEW[4:]]
TINY_MODEL = ["model.dim=16", "model.depth=1"]
SAMPLES = ["task.num_train=64", "task.num_val=16", "task.num_test=16"]
SMALL = {
    "mixer": ["task=gratings", "seed=0", *TINY_MODEL, *SAMPLES, *STEPS],
    "task": [*SAMPLES, *STEPS],
    "sweep": ["task=gratings", "seed=0", *SAMPLES, *STEPS],
    "language": [*TINY_MODEL, "trainer.max_steps=2", "logger=csv", "trainer.progress=false"],
    "inside": ["task.num_train=64", "task.num_val=16", "task.num_test=160", *STEPS],
    "cluster": ["task=listops", "model=chela", "seed=0", *TINY_MODEL, *TINY[1:8], *STEPS],
}


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Reader]]:
    """Follow a tutorial in an empty folder; what it imports is forgotten afterwards."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)

    def followed(tutorial: str) -> Reader:
        reader = Reader(monkeypatch, SMALL[tutorial])
        reader.follow(tutorial)
        return reader

    yield followed
    for own in ("mine", "parity"):
        sys.modules.pop(own, None)


def test_every_tutorial_is_followed() -> None:
    pages = {file.stem for file in (ROOT / "docs" / "tutorials").glob("*.md")}
    assert pages == set(SMALL)


@pytest.mark.training
def test_a_mixer(follow, capsys) -> None:
    reader = follow("mixer")
    said = capsys.readouterr().out
    assert reader.shown and all(line in said for line in reader.shown if line != "...")
    assert len(re.findall("^(?:OK|NONE) ", said, re.M)) == 2 * len(CHECKS)
    assert "there is no recipe for task=listops model=mine" in said
    assert "mine (width=7)" in said
    assert list(Path("outputs").glob("listops-mine-*/seed0/record.json"))


@pytest.mark.training
def test_a_task(follow, capsys) -> None:
    follow("task")
    said = capsys.readouterr().out
    assert "there is no recipe for task=parity model=chela" in said
    assert list(Path("data").glob("parity/generated-*/train.arrow"))
    (file,) = Path("outputs").glob("parity-chela-*/seed0/record.json")
    git = json.loads(file.read_text())["git"]
    if git["commit"]:  # which does not have the task
        assert git["dirty"]
        assert str(Path("my/parity.py").resolve()) in git["untracked"]


@pytest.mark.training
def test_a_sweep(follow, capsys) -> None:
    follow("sweep")
    assert "depth=2" in capsys.readouterr().out
    assert r"\begin{table" in Path("tables/report.tex").read_text()


@pytest.mark.training
def test_a_language_model(follow, tmp_path: Path, capsys) -> None:
    for name in ("docs", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert follow("language").ran == ["train", "generate", "train"]
    assert "The data" in capsys.readouterr().out


@pytest.mark.training
def test_looking_inside(follow) -> None:
    reader = follow("inside")
    plt.close("all")
    assert reader.names["confusion"].sum() == 160
    assert reader.names["seen"].shape == (144,)
    (folder,) = Path("outputs").glob("inside-*/seed0")
    assert (folder / "context.png").exists()
    record = json.loads((folder / "record.json").read_text())
    rows = re.findall(r"^\| (`.*?`) \|", (ROOT / "docs" / "records.md").read_text(), re.M)
    told = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert told == {*record, "error", "pruned"}  # which a finished run does not have
    assert all(Path(f"{name}.png").exists() for name in ("wrong", "kernels", "field"))


@pytest.mark.training
def test_a_cluster(follow, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    reader = follow("cluster")
    assert reader.ran == ["train", "prepare", "train", "train", "train", "status", "report"]
