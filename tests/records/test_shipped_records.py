"""The results that came with the code: each one's command still composes what was computed."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from chela.config import as_dict, compose_run
from chela.identity import decides, flat

# What a record of before a key was computed with.
LATER = {
    "task.stand_in": None,
    "model.head": "mlp",
    "model.pooled_norm": "none",
    "model.tie_dropout": False,
}

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
    return words


def test_there_are_results() -> None:
    assert len(RECORDS) > 20


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: "/".join(file.parts[-3:-1]))
def test_a_command_composes_what_its_record_holds(file: Path) -> None:
    held = json.loads(file.read_text())
    now = compose_run(ROOT / "configs", command(file))
    then, today = flat(held["config"]), flat(as_dict(now))
    for key, value in then.items():
        if decides(key, value):
            # a key that is gone may only have been unset
            assert today.get(key) == value, key
    for key in today.keys() - then.keys():
        assert not decides(key, today[key]) or today[key] == LATER[key], key
    assert held["data"]["version"] == now.task.target.version, "its data are made no more"
    assert held["status"] == "finished"
    assert held["run_id"].startswith(f"{now.name}-")
