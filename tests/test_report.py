"""scripts/report.py, as a user calls it."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from chela.commands import start
from tests.conftest import ROOT, program
from tests.records.samples import record, save

pytestmark = pytest.mark.process

FORMATS = ("md", "tex", "csv", "png", "html")


def in_a_terminal(width: int, *arguments: object) -> list[str]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "scripts/report.py", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(width), "TERM": "dumb"},
        stdout=theirs,
    )
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # how the end of a terminal is told
        while part := os.read(ours, 4096):
            text += part
    os.close(ours)
    assert process.wait() == 0
    return text.decode().replace("\r\n", "\n").splitlines()


def test_it_shows_the_table_and_writes_every_format(command, tmp_path: Path) -> None:
    for seed in range(2):
        save(tmp_path / "outputs", record(seed=seed, accuracy=0.5 + 0.01 * seed))
    result = command("report", tmp_path / "outputs")
    assert result.returncode == 0, result.stderr
    assert "50.50 ± 0.71 (2)" in result.stdout
    assert "no published value of CHELA" in result.stdout
    for suffix in FORMATS:
        file = tmp_path / "outputs" / "report" / f"report.{suffix}"
        assert file.stat().st_size > 500
        assert str(file) in result.stdout
    again = command("report", tmp_path / "outputs", f"out={tmp_path / 'elsewhere'}")
    for suffix in FORMATS:
        before, after = (
            (tmp_path / folder / f"report.{suffix}").read_bytes()
            for folder in ("outputs/report", "elsewhere")
        )
        assert before == after
    assert again.stderr == ""


def test_a_file_has_the_table_whole_and_a_terminal_in_parts(command, tmp_path: Path) -> None:
    for seed in range(2):
        for task in ("listops", "text", "retrieval", "image", "pathfinder", "pathx"):
            for depth in (1, 2):
                choices = {"depth": depth, "a_key_of_a_long_name": 10**9 + depth}
                content = record("chela", task, seed, 0.5 + 0.01 * seed, choices=choices)
                save(tmp_path / "outputs", content)
    piped = command("report", tmp_path / "outputs", f"out={tmp_path / 'piped'}").stdout.splitlines()
    (head,) = [line for line in piped if "model" in line and "Path-X" in line]
    assert len(head) > 160
    (row,) = [line for line in piped if "depth=2" in line and "│" in line]
    assert row.count("50.50 ± 0.71 (2)") == 6
    lines = in_a_terminal(80, tmp_path / "outputs", f"out={tmp_path / 'out'}")
    assert sum("┃ model" in line for line in lines) > 2
    assert max(len(line) for line in lines if line[0:1] in "┏┃┡│├└") <= 80
    assert sum(line.count("50.50 ± 0.71 (2)") for line in lines) == 12


def test_what_cannot_be_read_is_told_beside_what_can(command, tmp_path: Path) -> None:
    save(tmp_path, record())
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "record.json").write_text('{"record')
    result = command("report", tmp_path, f"out={tmp_path}/out")
    assert result.returncode == 0, result.stderr
    assert f"{tmp_path}/half/record.json: Unterminated string" in result.stdout
    for suffix in ("md", "csv", "html"):
        assert "half/record.json" in (tmp_path / "out" / f"report.{suffix}").read_text()


def test_an_empty_folder_is_one_message(command, tmp_path: Path) -> None:
    result = command("report", tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: no record.json below ")
    assert "try:" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_it_reads_the_outputs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "outputs", record(seed=0, accuracy=0.5))
    start("report", ["out=elsewhere"])
    assert "elsewhere/report.tex" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["out=a", "out=b"], "there is more than one out=FOLDER"),
        (["format=tex"], "there is no setting format=tex; every format is written.\n  try: out="),
        (["nothere"], "there is no folder nothere"),
    ],
)
def test_a_mistake_is_one_message(arguments: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        start("report", arguments)
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {said}")


def test_it_reads_records_without_torch() -> None:
    """Else it would take seconds to start."""
    code = (
        "import sys, chela.commands.report, chela.report.render;"
        "print(sorted({'torch', 'lightning', 'hydra', 'wandb'} & set(sys.modules)))"
    )
    assert program("-c", code).stdout == "[]\n"


def test_the_guide_names_every_file_and_has_its_picture() -> None:
    guide = (ROOT / "docs" / "report.md").read_text()
    assert all(f"`report.{suffix}`" in guide for suffix in FORMATS)
    assert (ROOT / "docs" / "report.png").stat().st_size < 200_000
