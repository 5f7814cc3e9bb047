"""The state of a run, from its folder alone: its record, its signs of life and its lease."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chela.records.collect import MOVED_ASIDE, SEARCHES
from chela.records.format import duration
from chela.records.record import FILE, is_number, number, read_json, read_record, text
from tasks.holder import LAPSE, SILENT, Holder, batch_job
from tasks.lease import holder_of

PROGRESS = "progress.json"  # written by the run every few seconds


@dataclass(frozen=True)
class RunState:
    """What one can say of a run now."""

    status: str  # waiting, preparing, running, finished, failed, interrupted, died, unreadable
    step: int | None = None
    steps: int | None = None  # that are planned
    seconds_left: float | None = None  # of training, at the speed of this session so far
    tokens_per_second: float | None = None
    value: float | None = None  # in validation: the best of a finished run, else the last
    metric: str = ""  # that it is of
    note: str = ""  # why it failed, or what to do


def run_state(folder: Path, now: float | None = None) -> RunState:
    """The state of the run in ``folder``.

    A record cannot tell that its run was killed; the lease can: a record that says "running" of a
    run that nobody holds is of one that died.

    Args:
        folder: the run's, which need not exist.
        now: seconds since the epoch; None: the clock's.
    """
    now = time.time() if now is None else now
    holder = holder_of(lease_of(folder), now)
    try:
        record = read_record(folder)
    except ValueError as error:
        return RunState("unreadable", note=f"{folder / FILE}: {error}")
    status = None if record is None else record["status"]
    if holder is not None and status != "running":
        note = f"data, model or the test of a finished run{_elsewhere(holder)}"
        return RunState("preparing", note=note)
    if record is None:
        return RunState("waiting")
    if status == "running":
        return _training(folder, holder, now)
    step, steps = (_count(record, f"training.{key}") for key in ("steps", "planned_steps"))
    speed = number(record, "training.tokens_per_second")
    if status == "finished":
        best, metric = number(record, "best.value"), record["protocol"]["metric"]["name"]
        return RunState("finished", step, steps, None, speed, best, metric)
    said = text(record, "pruned") or text(record, "error")
    note = said or "repeat the command to go on"
    return RunState(str(status), step, steps, None, speed, note=note.strip().partition("\n")[0])


def lease_of(folder: Path) -> Path:
    """The place that a run holds while it uses its folder, which may be moved aside meanwhile."""
    return folder.parent / f".{folder.name}.lease"


def seconds_left(done: int, seconds: float, left: int) -> float | None:
    """How long training goes on, at the mean pace of this session, compiling and validating in it.

    Args:
        done: steps of this session so far.
        seconds: that they took.
        left: steps to come.

    Returns:
        None before the first step.
    """
    return seconds / done * left if done > 0 else None


def run_folders(root: Path) -> Iterator[Path]:
    """The folders of all runs below an output_dir, searches' included, those not yet made too.

    A lease that nobody holds is left by what was killed before it began, and is no run.
    """
    found: set[Path] = set()
    for place in ("*", f"{SEARCHES}/*/*"):
        found |= {file.parent for file in root.glob(f"{place}/seed*/{FILE}")}
        leases = root.glob(f"{place}/.seed*.lease.*")
        begin = {each.with_name(each.name[1:].partition(".lease")[0]) for each in leases}
        found |= {folder for folder in begin - found if holder_of(lease_of(folder)) is not None}
    yield from sorted(folder for folder in found if not MOVED_ASIDE.search(folder.name))


def _training(folder: Path, holder: Holder | None, now: float) -> RunState:
    progress = _progress(folder)
    step, steps = _count(progress, "step"), _count(progress, "steps")
    speed, value = number(progress, "tokens_per_second"), number(progress, "value")
    metric = text(progress, "metric") or ""
    if holder is None:
        note = "killed without a word; repeat the command to go on from its last checkpoint"
        return RunState("died", step, steps, None, speed, value, metric, note)
    tests = step is not None and steps is not None and step >= steps
    note = "testing" if tests else ""
    if progress and (since := now - progress["time"]) > SILENT:  # it is stopped, or validates
        note = f"{note or 'no step'} for {duration(since)}"
    note = f"{note}{_elsewhere(holder)}".removeprefix("; ")
    return RunState("running", step, steps, _left(progress, now), speed, value, metric, note)


def _elsewhere(holder: Holder) -> str:
    """Which process it is, where it is none that this terminal would show."""
    here = holder.host == socket.gethostname() and holder.job == batch_job()
    said = "" if here else f"; {holder.describe()}"
    if not holder.is_silent:
        return said
    seconds = time.time() - holder.renewed
    return f"{said}, without a sign of life for {seconds:.0f} s (dead after {LAPSE:.0f})"


def _count(content: Mapping[str, Any], path: str) -> int | None:
    value = number(content, path)
    return None if value is None else int(value)


def _progress(folder: Path) -> Mapping[str, Any]:
    try:
        content = read_json(folder / PROGRESS)
    except (FileNotFoundError, ValueError):
        return {}
    needed = ("step", "steps", "time", "first_step", "first_time")
    whole = isinstance(content, dict) and all(is_number(content.get(key)) for key in needed)
    return content if whole else {}


def _left(progress: Mapping[str, Any], now: float) -> float | None:
    """Seconds of training left by now; None before the first steps, and when it is overdue."""
    if not progress:
        return None
    done = progress["step"] - progress["first_step"]
    seconds = progress["time"] - progress["first_time"]
    left = seconds_left(done, seconds, progress["steps"] - progress["step"])
    left = None if left is None else left - (now - progress["time"])
    return left if is_number(left) and left > 0 else None
