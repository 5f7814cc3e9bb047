"""A sweep that is killed in the middle and repeated gives the table of one that was not."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chela.records.collect import collect
from chela.records.state import run_folders, run_state
from chela.records.sweeps import read_cells
from chela.report.published import published
from chela.report.render import markdown, table_csv
from chela.report.table import build
from tests.conftest import ROOT, TINY
from tests.test_commands import train
from tests.test_launcher import AT_ONCE, wait_for

pytestmark = pytest.mark.kill

# What the clock and the machine decide, in the CSV's columns and in the table of costs.
MEASURED = ("tokens_per_second", "peak_memory_bytes", "seconds")
COSTS = re.compile(r"## Cost.*", re.DOTALL)


def arguments(place: Path, data: Path) -> list[str]:
    # time enough to be killed in
    longer = ["trainer.max_steps=120", "trainer.validate_every_steps=12"]
    return ["-m", *TINY, *longer, "seed=0,1", f"data_dir={data}", f"output_dir={place}"]


def tables(place: Path) -> tuple[str, list[dict[str, str]]]:
    """The report as Markdown and as CSV, without wall-clock numbers and the folders' place."""
    report = build(collect([place]), published())
    text = markdown(report).replace(str(place), "outputs")
    assert COSTS.search(text)
    rows = list(csv.DictReader(io.StringIO(table_csv(report).replace(str(place), "outputs"))))
    for row in rows:
        for name in MEASURED:
            row.pop(name)
    return COSTS.sub("", text), rows


def can_go_on(place: Path, seed: int) -> bool:
    return any(place.glob(f"*/seed{seed}/checkpoints/last.ckpt"))


def status(place: Path, seed: int) -> str:
    found = [folder for folder in run_folders(place) if folder.name == f"seed{seed}"]
    return run_state(found[0]).status if found else "waiting"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    place = tmp_path_factory.mktemp("whole")
    result = train(*arguments(place, shared_data), OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    return place


@pytest.mark.parametrize("launcher", [[], AT_ONCE], ids=["one by one", "two at once"])
def test_killed_and_repeated_is_the_same_table(
    launcher: list[str], whole: Path, tmp_path: Path, shared_data: Path
) -> None:
    sweep = [*arguments(tmp_path, shared_data), *launcher]
    process = subprocess.Popen(
        [sys.executable, "train.py", *sweep],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Side by side, the first cell may be the later one to begin.
    wait_for(lambda: {folder.name for folder in run_folders(tmp_path)} == {"seed0", "seed1"})
    wait_for(lambda: can_go_on(tmp_path, 1))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # A cell with a process of its own notices, and saves itself.
    expected = "interrupted" if launcher else "died"
    wait_for(lambda: status(tmp_path, 1) == expected)
    wait_for(lambda: status(tmp_path, 0) not in ("preparing", "running"))  # it may be at its end
    if launcher:  # one that is asked to stop has not failed
        (folder,) = tmp_path.glob("sweeps/*")
        assert [cell.error for cell in read_cells(folder).values()] == [None, None]
    again = train(*sweep, OMP_NUM_THREADS="1")
    assert again.returncode == 0, again.stderr
    logs = [file.read_text() for file in tmp_path.glob("sweeps/*/cells/*.log")]
    assert "resuming" in "".join([again.stdout, *logs])
    assert tables(tmp_path) == tables(whole)
