"""Which files compute a run, and what is said when they change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chela.records import environment
from chela.records.environment import git_state, peak_memory, reset_peak_memory
from chela.records.source import changes, code_state, source_files
from tasks.holder import BATCH_JOBS, batch_job


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a mixer that imports one file and not another; nothing of it is loaded."""
    place = tmp_path / "mineonly"
    (place / "fast").mkdir(parents=True)
    texts = {
        "__init__": "from mineonly import other",
        "mixer": "from mineonly.parts import x\ndef late():\n    from . import lazy, old",
        "parts": "import json\nx = 1",
        "lazy": "def late():\n    from .fast.kernel import y",
        "fast/__init__": "raise RuntimeError('it needs a GPU')",
        "fast/kernel": "y = 1",
        "old": "print 'of another Python'",
        "other": "",
    }
    for name, text in texts.items():
        (place / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield place
    for name in [each for each in sys.modules if each.partition(".")[0] == "mineonly"]:
        del sys.modules[name]
    source_files.cache_clear()
    code_state.cache_clear()


def test_the_files_are_those_that_a_mixer_imports(package: Path) -> None:
    assert list(source_files("mineonly.mixer")) == [
        "mineonly.fast.kernel",
        "mineonly.lazy",
        "mineonly.mixer",
        "mineonly.old",
        "mineonly.parts",
    ]
    assert "mineonly" not in sys.modules  # nothing is run to be hashed
    found = source_files("chela.mixers.s4d", "chela.model.backbone")
    assert {"chela.mixers.s4d", "chela.model.block", "chela.kernels.long_conv"} <= set(found)
    assert not any("mega" in name or "records" in name for name in found)


def test_a_changed_constant_is_named_and_another_model_is_not(package: Path) -> None:
    before = code_state("mineonly.mixer")
    assert changes(before, before) is None
    (package / "other.py").write_text("changed = 1")
    code_state.cache_clear()
    assert code_state("mineonly.mixer") == before
    (package / "parts.py").write_text("x = 2")
    assert code_state("mineonly.mixer") == before  # what is loaded stays what it was
    code_state.cache_clear()
    assert changes(before, code_state("mineonly.mixer")) == "mineonly.parts"
    for unknown in (None, {}, {"hash": 1}, "x", {"hash": "a", "files": []}):
        assert changes(unknown, before) is None


def test_a_model_that_git_does_not_have_makes_the_state_dirty(package: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", package, *who, *arguments], check=True, capture_output=True)

    git("init")
    assert git_state(package) == {"commit": None, "dirty": None, "untracked": {}}
    other = os.fsdecode(b"\xff.txt")  # a name in no encoding of today
    (package / other).touch()
    git("add", "__init__.py", "parts.py", "lazy.py", "old.py", "fast", other)
    git("commit", "-m", "x")
    files = source_files("mineonly.mixer").values()
    assert git_state(package)["dirty"] is False
    found = git_state(package, files)
    assert found["dirty"] is True
    assert set(found["untracked"]) == {"mixer.py"}
    assert len(found["commit"]) == 40
    git("add", "mixer.py")
    git("commit", "-m", "y")
    assert git_state(package, files)["dirty"] is False


def test_peak_memory_is_of_what_came_since(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not reset_peak_memory():
        pytest.skip("this system cannot measure anew")
    before = peak_memory()
    large = bytearray(200_000_000)
    large[::4096] = b"x" * len(large[::4096])
    del large
    assert peak_memory() > before + 150_000_000
    assert reset_peak_memory()
    assert peak_memory() < before + 100_000_000
    monkeypatch.setattr(environment, "PEAK_RESET", tmp_path)
    assert not reset_peak_memory()


def test_the_batch_systems_number_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BATCH_JOBS:
        monkeypatch.delenv(name, raising=False)
    assert batch_job() is None
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    assert batch_job() == "1234"
