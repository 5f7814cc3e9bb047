"""What is installed is the whole of it: no checkout is near, and the current folder is empty."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import chela
from chela.commands import COMMANDS, main
from chela.config.choices import CONFIGS
from tests.conftest import ROOT, TINY

PARTS = ("chela", "tasks", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel of the sdist is installed into, without a network."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for part in PARTS:  # a build leaves files beside its sources
        (source / part).symlink_to(ROOT / part)
    build = "from setuptools import build_meta; build_meta.build_sdist('.')"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)
    (sdist,) = source.glob("chela-*.tar.gz")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-compile"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    pip = [sys.executable, "-m", "pip", "install", *quiet, *offline]
    done = subprocess.run([*pip, "--target", str(site), str(sdist)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return site


@pytest.mark.process
def test_it_runs_from_an_empty_folder(site: Path, tmp_path: Path) -> None:
    def command(*words: str) -> str:
        done = subprocess.run(
            [str(site / "bin" / "chela"), *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    size = [each for each in TINY if each.startswith(("task.num_", "trainer."))]
    command("train", "experiment=demo", "logger=csv", *size, "trainer.max_steps=2")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data", "outputs"]
    (record,) = tmp_path.glob("outputs/demo-*/seed0/record.json")
    assert '"command": "chela train experiment=demo' in record.read_text()
    assert "outputs/report/report.html" in command("report", "outputs")


@pytest.mark.process
def test_it_holds_the_configuration_and_what_the_report_reads(site: Path) -> None:
    for theirs, ours in ((site / "chela/configs", CONFIGS), (site / "chela", ROOT / "chela")):
        kinds = ("*.py", "*.yaml", "*.csv", "*.html", "*.css", "*.md", "*.tex")
        held, wanted = (
            {file.relative_to(folder) for kind in kinds for file in folder.rglob(kind)}
            for folder in (theirs, ours)
        )
        assert wanted and {each for each in held if each.parts[0] != "configs"} == wanted


def test_a_checkout_reads_its_own_configuration() -> None:
    assert CONFIGS == ROOT / "configs"


def test_the_version_is_that_of_the_metadata(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["chela", "--version"])
    main()
    assert capsys.readouterr().out == f"chela {chela.__version__}\n"
    assert f'version = "{chela.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_the_help_names_every_command_and_a_mistyped_one_its_neighbour(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["chela"])
    main()
    shown = capsys.readouterr().out
    assert all(f"chela {name} " in shown for name in COMMANDS)
    assert max(map(len, shown.splitlines())) <= 80
    monkeypatch.setattr(sys, "argv", ["chela", "reprot"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "Did you mean 'report'" in capsys.readouterr().err
