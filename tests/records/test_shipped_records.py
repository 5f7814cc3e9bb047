"""The results that came with the code: each one's command still composes what was computed."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from chela.config.identity import digest
from chela.config.recipe import departures
from chela.config.schema import compose_run, computation
from chela.records.record import write_record

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "outputs/records").glob("*/seed*/record.json"))


def command(file: Path) -> list[str]:
    """What to type today: the record's own command, or that of a NOTE.md where recipes changed."""
    note = file.with_name("NOTE.md")
    if note.is_file():
        (line,) = re.findall(r"^ {4}python (train\.py .*)$", note.read_text(), re.MULTILINE)
    else:
        line = json.loads(file.read_text())["command"]
    script, *words = shlex.split(line)
    assert script == "train.py"
    if "-m" in words:  # of a sweep in one process: the cell's own values instead of the sweep's
        config = json.loads(file.read_text())["config"]
        cell = {
            **{part: config[part]["name"] for part in ("task", "model")},
            "seed": config["seed"],
        }
        words = [word for word in words if word != "-m" and word.partition("=")[0] not in cell]
        words += [f"{key}={value}" for key, value in cell.items()]
    return words


def as_held(content: object) -> Any:
    """As a record gives it back: a tuple is a list there."""
    return json.loads(json.dumps(content))


def test_there_are_results() -> None:
    assert len(RECORDS) > 20


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: "/".join(file.parts[-3:-1]))
def test_a_command_composes_what_its_record_holds(file: Path) -> None:
    held = json.loads(file.read_text())
    now = compose_run(command(file))
    assert as_held(computation(now)) == held["identity"]
    assert held["identity"]["task.version"] == held["data"]["version"]
    assert held["departures"] == as_held(departures(now))  # else: python -m tests.records.renew
    assert held["status"] == "finished"
    place = f"{held['config']['name']}-{digest(held['identity'])}"
    assert held["run_id"] == f"{place}-seed{held['config']['seed']}"
    assert file.parts[-3:-1] == (place, f"seed{held['config']['seed']}")


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: "/".join(file.parts[-3:-1]))
def test_a_record_stands_as_the_code_writes_it(file: Path, tmp_path: Path) -> None:
    """So that a change of one is a difference of a line: python -m tests.records.renew."""
    written = write_record(tmp_path, json.loads(file.read_text()))
    assert file.read_text() == written.read_text()
