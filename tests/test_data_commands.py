"""Commands about data, as a user calls them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from chela.commands.prepare import LRA, arguments_of
from chela.config.schema import compose_run
from tests.conftest import ROOT, TINY

LISTOPS = [each for each in TINY if each.startswith("task.")]


def test_prepare_describes_what_it_prepared(command, tmp_path: Path) -> None:
    words = ["prepare", "task=listops", *LISTOPS, f"data_dir={tmp_path}"]
    first, again = command(*words), command(*words)
    (folder,) = tmp_path.glob("listops/generated-*/")
    assert "preparing listops" in first.stderr
    assert str(folder) in first.stdout.replace("\n", "")
    assert again.stdout == first.stdout
    assert "preparing" not in again.stderr


def test_show_writes_a_picture(command, tmp_path: Path) -> None:
    places = [f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/out"]
    result = command("show", "task=listops", *LISTOPS, *places)
    (file,) = tmp_path.glob("out/pictures/listops-generated-*.png")
    assert str(file) in result.stdout


def test_an_unknown_key_is_one_message(command) -> None:
    result = command("prepare", "task=listops", "task.sorce=generated")
    assert result.returncode == 1
    assert "Did you mean 'source'" in result.stderr


def test_all_hands_each_task_its_own_keys() -> None:
    given = ["task=all", "data_dir=d", "image.stand_in=x", "retrieval.data=rfc"]
    assert arguments_of("image", given) == ["task=image", "data_dir=d", "task.stand_in=x"]
    assert arguments_of("text", given) == ["task=text", "data_dir=d"]
    assert len(LRA) == 6


def test_evidence_names_its_parts(tmp_path: Path) -> None:
    command = ["bash", "scripts/evidence.sh", str(tmp_path / "logs"), "kernel"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "there is no part 'kernel'; there are: tests kernels" in result.stderr
    assert not (tmp_path / "logs").exists()


def test_evidence_asks_for_what_there_is(tmp_path: Path) -> None:
    """Every command of every part, as a Python that only notes them is given it."""
    noted = tmp_path / "noted"
    for name in ("python", "compute-sanitizer"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$@" >>{noted}\n')
        (tmp_path / name).chmod(0o755)
    (parts,) = re.findall(r'^one="(.*)"$', (ROOT / "scripts/evidence.sh").read_text(), re.M)
    subprocess.run(
        ["bash", "scripts/evidence.sh", tmp_path / "logs", *parts.split(), "sequence", "two"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    commands = [line.split() for line in noted.read_text().splitlines()]
    assert len(commands) > 25
    for words in commands:
        for word in words:
            if word.startswith("tests/"):
                assert (ROOT / word).exists(), word
        if words[0] == "train.py" or "chela" in words:
            compose_run([word for word in words if "=" in word])
