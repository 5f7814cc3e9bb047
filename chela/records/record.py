"""``record.json``: all that is needed to believe a number, in one file per run."""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

from chela.records.files import write_text

VERSION = 2  # of the record's form; raised when a key changes its meaning
FILE = "record.json"
STATUSES = ("finished", "running", "interrupted", "failed")
LARGEST = 64 * 10**6  # bytes of a file that is read: some hundred times a long run's
NOT_IN_IDS = r"[/\\#?%:]"  # W&B's own rule
DEEPEST = 50  # sections inside each other

# What every record has, and what is of this kind or null wherever it is there. So whoever reads a
# record, which may come from anywhere, can count on the kinds of what he finds in it.
NEEDED: dict[str, type] = {
    "record_version": int,
    "status": str,
    "run_id": str,
    "config": dict,
    "config.name": str,
    "config.seed": int,
    "config.model": dict,
    "config.model.name": str,
    "data": dict,
    "data.task": str,
    "data.source": str,
    "data.stand_in": bool,
    "data.fingerprint": str,
    "data.splits": dict,
    "data.splits.test.max_length": int,
    "protocol.name": str,
    "protocol.selection": str,
    "protocol.metric.name": str,
    "protocol.metric.unit": str,
}
METRIC = {"value": float, "unit": str, "direction": str, "standard_error": float}
KNOWN: dict[str, type] = {
    path: kind
    for kind, paths in {
        dict: (
            "best code config.logger data.facts data.parameters departures engine files git "
            "hardware identity implementations initial_weights parameters protocol.evaluation test "
            "test.kinds test.metrics training versions wandb_run"
        ),
        str: (
            "command data.facts.alphabet error git.commit hardware.cpu hardware.gpu precision "
            "protocol.metric.direction pruned started training.peak_memory_of wandb_group "
            "wandb_id wandb_run.group wandb_run.name"
        ),
        int: (
            "best.step initial_weights.step parameters.total protocol.evaluation.context "
            "protocol.evaluation.stride test.n training.peak_memory_bytes training.planned_steps "
            "training.skipped_steps training.steps"
        ),
        float: (
            "best.value test.majority_class_accuracy training.epochs training.tokens_per_second "
            "training.wall_seconds"
        ),
        list: "metrics wandb_run.tags",
    }.items()
    for path in paths.split()
}


def write_record(folder: Path, content: dict[str, Any]) -> Path:
    """Write the record of a run, replacing the one before atomically.

    Args:
        folder: the run's folder.
        content: JSON values; numbers that are not finite become null, as JSON knows none.

    Returns:
        The file.
    """
    file = folder / FILE
    text = json.dumps(_finite({"record_version": VERSION, **content}), indent=1, allow_nan=False)
    write_text(file, text + "\n")
    return file


def mark_failed(folder: Path, error: str) -> None:
    """Let no record say "running" of a run that failed, on a disk without room for a new one too.

    On a disk that is read-only nothing can be done; the lease then tells that the run has ended.
    """
    with suppress(OSError, ValueError):
        record = read_record(folder)
        if record is None or record["status"] != "running":
            return
        try:
            write_record(folder, {**record, "status": "failed", "error": error})
        except OSError:
            with (folder / FILE).open("r+b") as file:  # in place, where it has its room
                file.seek(file.read(4096).index(b'"running"'))
                file.write(b'"failed" ')


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in ``folder``, or None if there is none.

    Raises:
        ValueError: the file cannot be read, or is not a record, see ``check``.
    """
    try:
        return check(read_json(folder / FILE))
    except FileNotFoundError:
        return None


def read_json(file: Path) -> Any:
    """What a file says that may come from anywhere.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, is no JSON, or is larger or deeper than any of ours.
    """
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, a device has no end
            raise ValueError("it is not a regular file")
        if found.st_size > LARGEST:
            raise ValueError(f"it has {found.st_size:,} bytes, and no file of a run so many")
        written = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(*error.args) from error
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror or error}") from error
    try:
        content = json.loads(written)
        _refuse_depth(content)
        if "\\ud" in written.lower():  # half of a pair of code units: no format could write it
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError(f"it is nested more than {DEEPEST} deep") from error
    return content


def check(content: Any) -> dict[str, Any]:
    """What JSON gave, if it is a record whose parts have the kinds that readers count on.

    Raises:
        ValueError: it is no record, one of a newer form, or lacks what every record has.

    One of an earlier form is turned into the newest.
    """
    if not isinstance(content, dict):
        raise ValueError("it is not a run's record")
    _check_kind(content, "record_version", int)
    if content["record_version"] > VERSION:
        raise ValueError(
            f"its form {content['record_version']} is newer than this program reads ({VERSION}): "
            "update the project"
        )
    if content["record_version"] == 1:
        content = _second(content)
    for path, kind in NEEDED.items():
        _check_kind(content, path, kind)
    if content["status"] not in STATUSES:
        raise ValueError(f"status {content['status']!r:.40} is not one of {', '.join(STATUSES)}")
    for split in content["data"]["splits"]:
        _check_kind(content, ("data", "splits", split, "rows"), int)
    if content["status"] == "finished":
        for path in ("test.n", "best.step"):
            _check_kind(content, path, int)
    for path, kind in KNOWN.items():
        if at(content, path) is not None:
            _check_kind(content, path, kind)
    for name in (content["protocol"]["metric"]["name"], *(at(content, "test.metrics") or ())):
        if not name.isidentifier():
            raise ValueError(f"{name!r:.40} is no name of a metric")
    for name in at(content, "test.metrics") or ():
        metric = ("test", "metrics", name)
        _check_kind(content, metric, dict)
        for part, kind in METRIC.items():
            if at(content, (*metric, part)) is not None:
                _check_kind(content, (*metric, part), kind)
    if re.search(NOT_IN_IDS, text(content, "wandb_id") or ""):
        raise ValueError(f"W&B has no run of the id {content['wandb_id']!r:.40}")
    for row in content.get("metrics") or []:
        if not isinstance(row, dict) or not is_number(row.get("step")):
            raise ValueError("a row of its metrics has no step")
    return content


def at(record: Mapping[str, Any], path: str | Iterable[str]) -> Any:
    """The value at a place of a record, ``"training.steps"``; None where there is none."""
    value: Any = record
    for part in path.split(".") if isinstance(path, str) else path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def number(record: Mapping[str, Any], path: str | Iterable[str]) -> float | None:
    """The number at a place of a record; None where there is none."""
    value = at(record, path)
    return float(value) if is_number(value) else None


def text(record: Mapping[str, Any], path: str) -> str | None:
    """The text at a place of a record; None where there is none."""
    value = at(record, path)
    return value if isinstance(value, str) else None


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a finite number that a float can hold; ``true`` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def primary(record: Mapping[str, Any]) -> dict[str, Any]:
    """The tested value of the metric that selects, its unit, direction and standard error.

    Empty where the record has none; the value may be one that is no number.
    """
    metric = at(record, "protocol.metric.name")
    found = at(record, ("test", "metrics", metric)) if isinstance(metric, str) else None
    return found if isinstance(found, dict) else {}


def machine(record: Mapping[str, Any]) -> str | None:
    """The GPU's name, or the processor's with its threads; None if the record has neither."""
    gpu, cpu = text(record, "hardware.gpu"), text(record, "hardware.cpu")
    threads = number(record, "hardware.torch_threads")
    if gpu or not cpu or threads is None:
        return gpu or cpu
    return f"{cpu}, {threads:.0f} thread{'' if threads == 1 else 's'}"


def trivial_scores(record: Mapping[str, Any]) -> dict[str, float]:
    """The accuracy of rules without learning on the same data, where it was measured, by name."""
    names = at(record, "data.facts.baselines")
    scores = {
        name: number(record, ("data", "facts", "baselines", name, "accuracy"))
        for name in (names if isinstance(names, dict) else ())
    }
    return {name: score for name, score in scores.items() if score is not None}


def _second(content: Mapping[str, Any]) -> dict[str, Any]:
    """A record of the first form, which knew of one accuracy alone, in the second."""
    accuracy = {"unit": "fraction", "direction": "max"}
    protocol, best, test = (content.get(part) for part in ("protocol", "best", "test"))
    new = {**content, "record_version": 2}
    if isinstance(protocol, dict):
        new["protocol"] = {**protocol, "metric": {"name": "accuracy", **accuracy}}
    if isinstance(best, dict):
        new["best"] = {"step": best.get("step"), "value": best.get("accuracy")}
    if isinstance(test, dict):
        error = test.get("standard_error")
        rest = {key: test[key] for key in ("n", "majority_class_accuracy") if key in test}
        loss = {"value": test.get("loss"), "unit": "nats", "direction": "min"}
        found = {"value": test.get("accuracy"), **accuracy, "standard_error": error}
        new["test"] = {**rest, "primary": "accuracy", "metrics": {"loss": loss, "accuracy": found}}
    return new


def _check_kind(content: Mapping[str, Any], path: str | tuple[str, ...], kind: type) -> None:
    value = at(content, path)
    if kind is float:
        right = isinstance(value, float) or is_number(value)  # nan: some programs write it
    elif kind is int:
        right = isinstance(value, int) and is_number(value)
    else:
        right = isinstance(value, kind)
    if not right:
        name = path if isinstance(path, str) else ".".join(path)
        what = "missing" if value is None else f"{value!r:.40}, not {kind.__name__}"
        raise ValueError(f"{name} is {what}")


def _refuse_depth(content: Any) -> None:
    level = [content]
    for _ in range(DEEPEST):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise RecursionError


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
