"""Records, atomic files, the summary and the curve, from plain values."""

from __future__ import annotations

import json
import math
import os
import time

import pytest
import torch
from rich.console import Console

from chela.records.curve import draw_curve
from chela.records.environment import git_state, hardware, versions
from chela.records.files import atomic_file, write_text
from chela.records.format import human
from chela.records.record import check, read_record, write_record
from chela.records.summary import summary_table
from tests.conftest import ROOT
from tests.records.samples import record as sample


def test_an_error_while_writing_leaves_the_file_before(tmp_path) -> None:
    target = tmp_path / "file"
    write_text(target, "before")
    with pytest.raises(RuntimeError), atomic_file(target) as file:
        file.write(b"half")
        raise RuntimeError
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_of_two_that_write_a_file_at_once_each_leaves_a_whole_one(tmp_path) -> None:
    target = tmp_path / "file"
    with atomic_file(target) as first, atomic_file(target) as second:
        first.write(b"the first")
        second.write(b"2nd")
    assert target.read_text() == "the first"  # which ended last
    assert list(tmp_path.iterdir()) == [target]


def test_what_killed_processes_were_writing_goes_a_day_later(tmp_path) -> None:
    """Not that of a process that may live, nor what was to take the place of another file."""
    writing = [atomic_file(tmp_path / name) for name in ("a[1]", "a[1]", "b[1]")]
    for each in writing:
        each.__enter__()  # and it never ends
    old, young, other = sorted(tmp_path.iterdir(), key=lambda file: file.name[:3])
    for each, days in ((old, 1.1), (young, 0.9), (other, 1.1)):
        os.utime(each, times=2 * (time.time() - days * 86_400,))
    write_text(tmp_path / "a[1]", "whole")
    assert {*tmp_path.iterdir()} == {young, other, tmp_path / "a[1]"}


def test_a_record_survives_and_is_strict_json(tmp_path) -> None:
    rows = [{"step": 1, "x": math.inf}, {"step": 2, "x": 1.5}]
    file = write_record(tmp_path, {**sample(), "loss": math.nan, "metrics": rows})
    json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    rows[0]["x"] = None
    assert read_record(tmp_path) == {**check(sample()), "loss": None, "metrics": rows}


def test_no_record_is_none_and_another_file_is_an_error(tmp_path) -> None:
    assert read_record(tmp_path) is None
    (tmp_path / "record.json").write_text("[]")
    with pytest.raises(ValueError, match="not a run's record"):
        read_record(tmp_path)


def test_the_environment_is_described() -> None:
    assert versions()["torch"] == torch.__version__
    assert versions()["chela"]
    assert hardware(torch.device("cpu"))["cpu"]
    assert len(git_state(ROOT / "chela")["commit"]) == 40


def test_outside_a_checkout_there_is_no_commit(tmp_path) -> None:
    assert git_state(tmp_path) == {"commit": None, "dirty": None, "untracked": {}}


@pytest.mark.parametrize(
    ("number", "text"), [(0.5, "0.5"), (999, "999"), (1000, "1k"), (12_345_678, "12.3M")]
)
def test_numbers_for_people(number, text) -> None:
    assert human(number) == text


def example() -> dict:
    rows = [{"step": s, "train/loss": 1 / s, "train/accuracy": 0.5} for s in range(1, 9)]
    rows[-1] |= {"val/loss": 0.3, "val/accuracy": 0.6}
    return {
        "run_id": "listops-chela-00000000-seed0",
        "test": {
            "n": 2000,
            "primary": "accuracy",
            "metrics": {
                "loss": {"value": 1.2, "unit": "nats"},
                "accuracy": {"value": 0.61, "unit": "fraction", "standard_error": 0.0109},
            },
            "majority_class_accuracy": 0.17,
        },
        "best": {"step": 8, "value": 0.6},
        "training": {"steps": 8, "epochs": 0.5, "tokens_per_second": 1234.5, "wall_seconds": 3725},
        "protocol": {"name": "heldout", "metric": {"name": "accuracy"}},
        "data": {
            "task": "listops",
            "source": "generated",
            "stand_in": False,
            "facts": {},
            "fingerprint": "ab" * 32,
        },
        "parameters": {"total": 123_456},
        "implementations": {"long_conv": "torch"},
        "hardware": {"cpu": "a processor", "torch_threads": 2},
        "files": {"record": "record.json"},
        "metrics": rows,
    }


def test_the_summary_holds_what_one_looks_for(tmp_path) -> None:
    console = Console(width=100, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    console.print(summary_table(example(), tmp_path))
    text = console.export_text()
    for part in ["0.6100 ± 0.0109 (n = 2,000)", "0.1700", "step 8", "123,456", "1 h 02 min"]:
        assert part in text
    assert "abababababab" in text


def test_the_curve_is_a_picture(tmp_path) -> None:
    record = example()
    file = draw_curve(tmp_path, "title", record["metrics"], record["test"], 8)
    assert file.read_bytes().startswith(b"\x89PNG")
