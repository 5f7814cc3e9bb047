"""The mixer of docs/tutorials/mixer.md; a test follows the whole page (tests/test_tutorials.py)."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chela.commands import start
from chela.testing import outputs_see_what_they_may
from tests.conftest import ROOT
from tests.documented import titled

FILES = ("my/mine.py", "my/configs/model/mine.yaml")
README_LINES = re.findall(
    r"^chela .*--config-dir.*", (ROOT / "README.md").read_text(), re.MULTILINE
)
OWN = ["model=mine", "--config-dir", "my/configs"]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The documented files below ``my``, in a folder that is empty but for them."""
    (tmp_path / "my" / "configs" / "model").mkdir(parents=True)
    for file in FILES:
        (tmp_path / file).write_text(titled("docs/tutorials/mixer.md", file))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("my")
    yield tmp_path
    sys.modules.pop("mine", None)


def chela(monkeypatch: pytest.MonkeyPatch, name: str, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["chela", name, *words])
    start(name, words)


@pytest.mark.parametrize("line", README_LINES)
def test_a_command_of_the_readme_composes_it(mine: Path, line: str, monkeypatch, capsys) -> None:
    _, _, *words = [each for each in shlex.split(line, comments=True) if each != "-m"]
    chosen = [re.sub(r"=.*,", "=", each) for each in words]  # of a sweep's values
    chela(monkeypatch, "train", *chosen, "--cfg", "job")
    assert "_target_: mine.MyMixer" in capsys.readouterr().out


def test_a_local_mixer_that_does_not_say_so_is_found(mine: Path, monkeypatch, capsys) -> None:
    file = mine / "my" / "mine.py"
    file.write_text(file.read_text().replace("    local = True", "    local = False"))
    with pytest.raises(SystemExit) as ended:
        chela(monkeypatch, "test-model", *OWN)
    assert ended.value.code == 1
    wrong = [each for each in capsys.readouterr().out.splitlines() if each.startswith("WRONG")]
    name = outputs_see_what_they_may.__name__.replace("_", " ")
    assert len(wrong) == 2 and all(f"{name}: " in each for each in wrong)
