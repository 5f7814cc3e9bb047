"""Which files become runs, and what becomes of those that cannot."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from chela.records.collect import collect, parse
from chela.records.record import VERSION, is_number
from tasks.errors import DataError
from tests.records.samples import record, save


def test_every_run_below_the_folders_is_found_once(tmp_path) -> None:
    for seed in (0, 1):
        save(tmp_path / "a", record(seed=seed))
    save(tmp_path / "b", record("s4d"))
    found = collect([tmp_path / "a", tmp_path / "b", tmp_path])  # the last holds the others
    assert [(run.model, run.seed) for run in found.runs] == [("chela", 0), ("chela", 1), ("s4d", 0)]
    assert not found.unread
    assert not found.repeated


def test_a_run_knows_what_its_record_says(tmp_path) -> None:
    file = save(tmp_path, record("chela", "text", 2, 0.875, identity="a1b2c3d4", protocol="lra"))
    (run,) = collect([tmp_path]).runs
    assert run.folder == file.parent
    assert (run.model, run.task, run.seed, run.identity) == ("chela", "text", 2, "a1b2c3d4")
    assert (run.status, run.value, run.test_n, run.protocol) == (
        "finished",
        87.5,
        25_000,
        "lra",
    )
    assert run.number("training.wall_seconds") == 3725
    assert run.number("training.nothing") is run.number("nothing.at.all") is None
    assert run.text("hardware.gpu") == "NVIDIA H200"


def test_what_does_not_decide_the_computation_is_no_choice() -> None:
    run = parse(record(), Path())
    assert run.choices == {"task.name": "listops", "model.name": "chela", "model.dim": 64}


def test_a_key_that_is_neutral_or_younger_than_the_run_has_a_value_all_the_same() -> None:
    made = record()
    made["config"]["model"]["pooled_norm"] = "none"  # and it is no part of the identity
    keys = ["model.dim", "model.pooled_norm", "model.later"]
    assert parse(made, Path()).values(keys) == dict(zip(keys, [64, "none", None], strict=True))


def test_what_was_moved_aside_is_left_out(tmp_path) -> None:
    file = save(tmp_path, record())
    file.parent.rename(file.parent.with_name("seed0.earlier-1"))
    with pytest.raises(DataError, match=r"no record\.json below .*\n  try: "):
        collect([tmp_path])
    save(tmp_path, record(accuracy=0.25))
    assert [run.value for run in collect([tmp_path]).runs] == [25.0]


def test_trials_and_what_came_with_the_code_are_left_out_unless_named(tmp_path) -> None:
    for number, folder in enumerate(("mine", "records", "search/s")):
        save(tmp_path / folder / "run" / "seed0", record("chela", seed=number))
    assert [run.seed for run in collect([tmp_path]).runs] == [0]
    assert [run.seed for run in collect([tmp_path / "records"]).runs] == [1]
    assert [run.seed for run in collect([tmp_path / "search"]).runs] == [2]


def test_a_folder_that_is_not_there(tmp_path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*\n  try: "):
        collect([tmp_path / "nowhere"])


def without(path: str) -> dict:
    made = record()
    *parents, last = path.split(".")
    section = made
    for name in parents:
        section = section[name]
    del section[last]
    return made


NEEDED = ("run_id", "config", "config.model.name", "data.splits.train.rows", "test.n")


@pytest.mark.parametrize("path", NEEDED)
def test_a_record_without_a_needed_key_is_listed(path, tmp_path) -> None:
    save(tmp_path, record(seed=1))
    file = tmp_path / "bad" / "record.json"
    file.parent.mkdir()
    file.write_text(json.dumps(without(path)))
    found = collect([tmp_path])
    assert [run.seed for run in found.runs] == [1]
    (unread,) = found.unread
    assert unread.file == file
    assert "is missing" in unread.reason
    assert path.partition(".")[0] in unread.reason


DAMAGED = {
    "empty": (b"", "Expecting value"),
    "half": (json.dumps(record()).encode()[:200], "line"),
    "no object": (b"[]", "not a run's record"),
    "not UTF-8": (b'{"status": "\xff"}', "utf-8"),
    "half a letter": (
        json.dumps(record(error="\ud800")).encode(),
        "surrogates not allowed",
    ),
    "too deep": (b"[" * 100_000, "nested more than 50 deep"),
    "deeper than any reader goes": (
        b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}",
        "nested more than 50 deep",
    ),
    "a text for an accuracy": (
        json.dumps(record() | {"best": {"step": 1, "accuracy": "x"}}).encode(),
        "best.value is 'x', not float",
    ),
    "true for an accuracy": (
        json.dumps(record() | {"best": {"step": 1, "accuracy": True}}).encode(),
        "best.value is True, not float",
    ),
    "a list for a section": (
        json.dumps(record() | {"training": []}).encode(),
        "training is [], not dict",
    ),
    "a row of metrics that is none": (
        json.dumps(record() | {"metrics": [{"step": 1}, 5]}).encode(),
        "no step",
    ),
    "newer": (
        json.dumps(record() | {"record_version": VERSION + 1}).encode(),
        "update the project",
    ),
    "status": (json.dumps(record(status="asleep")).encode(), "'asleep' is not one of"),
    "a text for a number": (json.dumps(record(record_version="1")).encode(), "not int"),
    "true for a number": (json.dumps(record(record_version=True)).encode(), "not int"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_listed_with_its_reason(name, tmp_path) -> None:
    content, reason = DAMAGED[name]
    (tmp_path / "record.json").write_bytes(content)
    found = collect([tmp_path])
    assert not found.runs
    (unread,) = found.unread
    assert reason in unread.reason


@pytest.mark.parametrize("accuracy", ["NaN", "null", "1.5", "-0.1", "1e999"])
def test_an_accuracy_that_is_none_makes_the_run_failed(accuracy, tmp_path) -> None:
    made = json.dumps(record(accuracy=0.123456789))
    head, of_the_test, tail = made.rpartition('"accuracy": 0.123456789')
    assert of_the_test
    (tmp_path / "record.json").write_text(f'{head}"accuracy": {accuracy}{tail}')
    (run,) = collect([tmp_path]).runs
    assert run.status == "failed"
    assert run.value is None
    assert run.error == "its test accuracy is not a number between 0 and 1"


def test_a_copy_of_a_run_counts_once(tmp_path) -> None:
    save(tmp_path / "first", record(status="interrupted"))
    save(tmp_path / "second", record(accuracy=0.75))
    found = collect([tmp_path])
    assert [run.value for run in found.runs] == [75.0]
    (sentence,) = found.repeated
    assert "second" in sentence.partition(" is also in ")[0]
    assert "first" in sentence.partition(" is also in ")[2]


@pytest.mark.parametrize("value", [0, 1.5, -3])
def test_numbers(value) -> None:
    assert is_number(value)


@pytest.mark.parametrize(
    "value", [True, "1", None, math.nan, math.inf, pytest.param(10**400, id="1e400")]
)
def test_what_is_no_finite_number(value) -> None:
    assert not is_number(value)
