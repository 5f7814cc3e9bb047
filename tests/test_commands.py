"""The commands of the README, as a user types them."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
from functools import partial
from pathlib import Path

import pytest

from chela.commands import COMMANDS, start
from chela.config.schema import parse
from tests.conftest import ROOT, TINY, composed_of, program

README = (ROOT / "README.md").read_text()
SWEEPS = (ROOT / "docs" / "sweeps.md").read_text()
# have arguments of their own
PLAIN = ("scripts/report.py", "report", "bench-kernels", "status", "search")
LINES = re.findall(r"^(?:python|chela) .*", README + SWEEPS, re.M)
TYPED = sorted({line.split("#")[0].strip() for line in LINES if "--config-dir" not in line})


train = partial(program, "train.py")


@pytest.mark.parametrize("command", TYPED)
def test_a_command_of_the_readme_composes(command: str) -> None:
    """Each names what there is and a configuration that can be run."""
    program, name, *arguments = shlex.split(command)
    assert name in COMMANDS if program == "chela" else (ROOT / name).exists()
    if name in PLAIN:
        return
    overrides = [each for each in arguments if not each.startswith("-")]
    first = [re.sub(r"=([^,\[]+),.*", r"=\1", each) for each in overrides]  # of a sweep's values
    parse(composed_of(*first))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_is_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        start(name, ["--help"])
    except SystemExit as ended:
        assert not ended.code
    said = capsys.readouterr().out
    assert f"chela {name}" in said
    assert name == "train" or "Train one model" not in said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("report out=", "out=''"),
        ("report ''", "''"),
        ("recall . out=", "out=''"),
        ("recall ''", "''"),
        ("bench-generation --output ''", "''"),
        ("efficiency --output ''", "''"),
        ("train -m experiment=demo seed=0,1 output_dir=", "output_dir=''"),
        ("show task=gratings output_dir=", "output_dir=''"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    command: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *words = shlex.split(command)
    monkeypatch.setattr("sys.argv", ["chela", name, *words])
    with pytest.raises(SystemExit, match="1"):
        start(name, words)
    assert capsys.readouterr().err.startswith(f"error: {said} names no folder.\n  try: ")
    assert not [*tmp_path.iterdir()]


def test_scripts_are_the_commands_in_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = sorted((ROOT / "scripts").glob("*.py"))
    for page in pages:
        started: list[str] = []
        monkeypatch.setattr("chela.commands.start", lambda name, _, to=started: to.append(name))
        runpy.run_path(str(page), run_name="__main__")
        assert started == [page.stem.replace("_", "-")]
    names = {page.stem.replace("_", "-") for page in pages}
    assert names == {*COMMANDS} - {"train", "test-model"}  # train.py; the tests of one's own mixer


@pytest.mark.parametrize(
    ("name", "words", "part", "said"),
    [
        ("generate", ["run=.", "prompt=x"], "chela.hub.load", ""),
        ("prepare", ["task=listops"], "chela.commands.prepare.prepare", "what was prepared stays"),
    ],
)
def test_ctrl_c_ends_a_command_and_says_what_stays(
    name: str, words: list[str], part: str, said: str, monkeypatch, capsys
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(part, interrupted)
    with pytest.raises(SystemExit) as ended:
        start(name, words)
    assert ended.value.code == 130
    err = capsys.readouterr().err
    assert said in err if said else not err.strip()


def test_the_readme_has_commands() -> None:
    assert len(TYPED) >= 5


def test_the_readme_is_short() -> None:
    assert len(README.split()) < 900


def test_the_numbers_of_the_readme_are_those_of_the_results() -> None:
    results = (ROOT / "docs" / "results.md").read_text().replace("**", "")
    numbers = re.findall(r"\d\d\.\d\d ± \d\.\d\d", README.replace("**", ""))
    assert len(numbers) >= 9
    assert not [each for each in numbers if each not in results]


def test_make_knows_the_two_commands() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    for goal in re.findall(r"(?:^|`)make ([\w-]+)", README + guide, re.M):
        shown = subprocess.run(
            ["make", "--dry-run", goal], cwd=ROOT, capture_output=True, text=True
        )
        assert shown.returncode == 0, shown.stderr


def test_check_leaves_out_the_slow_kinds_and_a_test_is_of_one_at_most(
    request: pytest.FixtureRequest,
) -> None:
    markers = (ROOT / "pyproject.toml").read_text().partition("markers = [")[2].partition("]\n")[0]
    gpu, cluster, *slow = re.findall(r'^ +"(\w+): ', markers, re.M)
    assert (gpu, cluster) == ("gpu", "cluster")
    assert f"SLOW   := {' or '.join(slow)}\n" in (ROOT / "Makefile").read_text()
    for item in request.session.items:
        assert len({mark.name for mark in item.iter_markers()} & set(slow)) <= 1, item.nodeid


@pytest.mark.process
def test_without_a_terminal_there_are_lines(tmp_path: Path, shared_data: Path) -> None:
    places = [f"data_dir={shared_data}", f"output_dir={tmp_path}"]
    slurm = tmp_path / "bin" / "srun"  # of a machine that has batch jobs
    slurm.parent.mkdir()
    slurm.write_text("#!/bin/sh\n")
    slurm.chmod(0o755)
    path = f"{slurm.parent}:{os.environ['PATH']}"
    result = train(*TINY, *places, "trainer.progress=true", PATH=path)
    assert result.returncode == 0, result.stderr
    line = r"step 12/12  loss [\d.]+  val accuracy [\d.]+  train accuracy [\d.]+  \S+ tokens/s"
    assert re.search(line, result.stdout)
    said = (result.stdout + result.stderr).lower()
    assert "warn" not in said and "srun" not in said


@pytest.mark.training
def test_the_demo_learns(command, tmp_path: Path) -> None:
    """The demo in two of its five epochs: clearly above the majority class."""
    places = [f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/outputs"]
    result = command("train", "experiment=demo", "trainer.max_epochs=2", *places)
    assert result.returncode == 0, result.stderr
    (file,) = tmp_path.glob("outputs/demo-*/seed0/record.json")
    record = json.loads(file.read_text())
    test, found = record["test"], record["test"]["metrics"]["accuracy"]
    least = found["value"] - 5 * found["standard_error"]
    assert least > test["majority_class_accuracy"] + 0.3
