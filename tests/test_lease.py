"""Who is at a place: one process at a time, whatever ended the one before, on whatever machine."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tasks import lease
from tasks.holder import LAPSE, SILENT, Holder, _started, this_process
from tasks.lease import APART, Taken, hold, holder_of
from tests.conftest import ROOT

ELSEWHERE = Holder("node3", "another boot", 7, "1", token="theirs")
FORK = multiprocessing.get_context("fork")


def write(place: Path, holder: Holder, age: float = 0.0, number: int = 1) -> Path:
    """A lease that was renewed ``age`` seconds ago."""
    file = place.with_name(f"{place.name}.{number}")
    file.write_text(json.dumps(asdict(holder)))
    os.utime(file, (time.time() - age,) * 2)
    return file


def take_turns(place: Path, dies: bool, start: Any, entered: Any) -> None:
    """Thirty times at a place where nobody else may be; then perhaps die there."""
    start.wait()
    for turn in range(30):
        with hold(place, wait=lambda _: True):
            place.with_name("alone").touch(exist_ok=False)
            with entered:
                entered.value += 1
            place.with_name("alone").unlink()
            if dies and turn == 10:
                os._exit(0)


@pytest.mark.process
def test_of_many_processes_one_is_there_at_a_time_though_some_die_there(tmp_path: Path) -> None:
    place, start, entered = tmp_path / "place", FORK.Barrier(8), FORK.Value("i", 0)
    workers = [
        FORK.Process(target=take_turns, args=(place, number % 4 == 0, start, entered))
        for number in range(8)
    ]
    for each in workers:
        each.start()
    for each in workers:
        each.join(120)
    assert [each.exitcode for each in workers] == [0] * 8
    assert entered.value == 6 * 30 + 2 * 11
    assert holder_of(place) is None


def try_once(place: Path, start: Any, held: Any, over: Any) -> None:
    start.wait()
    try:
        with hold(place):
            with held:
                held.value += 1
            over.wait()
    except Taken:
        over.wait()


@pytest.mark.process
@pytest.mark.parametrize("left", ["nothing", "a dead one"])
def test_of_those_that_start_in_the_same_moment_exactly_one_has_it(
    left: str, tmp_path: Path
) -> None:
    for round_ in range(5):
        place = tmp_path / f"place{round_}"
        if left != "nothing":
            write(place, ELSEWHERE, age=2 * APART, number=3)
        start, over, held = FORK.Barrier(8), FORK.Barrier(8), FORK.Value("i", 0)
        workers = [FORK.Process(target=try_once, args=(place, start, held, over)) for _ in range(8)]
        for each in workers:
            each.start()
        for each in workers:
            each.join(60)
        assert held.value == 1


def test_the_holder_is_named_and_others_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    place = tmp_path / "a" / "place"
    with hold(place):
        holder = holder_of(place)
        assert holder is not None
        assert (holder.pid, holder.job) == (os.getpid(), "77")
        assert holder.describe().startswith(f"process {os.getpid()} on ")
        with pytest.raises(Taken, match="job 77"), hold(place):
            pass
    assert holder_of(place) is None
    assert not list(place.parent.iterdir())


@pytest.mark.parametrize(
    ("age", "lives", "silent"),
    [
        (0.0, True, False),
        (SILENT + 5, True, True),
        (LAPSE + 5, False, True),
        (-3600.0, True, False),
    ],
)
def test_of_another_machine_its_signs_of_life_decide(
    age: float, lives: bool, silent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    write(place, ELSEWHERE, age)
    assert (holder_of(place) is not None) == lives
    monkeypatch.setattr(lease, "SILENT", SILENT if lives else 0.0)
    asked: list[Holder] = []
    try:
        with hold(place, wait=lambda each: bool(asked.append(each))):
            assert [each.name for each in tmp_path.iterdir()] == ["place.2"]
    except Taken as taken:
        assert taken.holder.is_silent == silent
    assert [each.host for each in asked] == ["node3"] * lives


@pytest.mark.parametrize("ahead", [600.0, -600.0])
@pytest.mark.parametrize(("age", "lives"), [(5.0, True), (LAPSE + 5, False)])
def test_a_clock_that_is_wrong_is_compared_with_the_disks(
    ahead: float, age: float, lives: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_AHEAD", {})
    write(tmp_path / "place", ELSEWHERE, age)
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + ahead)
    with hold(tmp_path / "another"):
        holder = holder_of(tmp_path / "place")
    assert (holder is not None and not holder.is_silent) == lives
    lease._AHEAD.clear()
    monkeypatch.setattr(lease, "SILENT", 0.0)
    with pytest.raises(Taken) if lives else nullcontext(), hold(tmp_path / "place"):
        pass


@pytest.mark.parametrize("stirs", [True, False])
def test_where_each_machine_dates_by_its_own_clock_one_that_stirs_is_not_dead(
    stirs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock is five minutes behind, and some disks (Lustre, GPFS) believe it."""
    place = tmp_path / "place"
    file = write(place, ELSEWHERE, age=300)
    monkeypatch.setattr(lease, "RENEW", 0.1)
    monkeypatch.setattr(lease, "SILENT", 10.0 if stirs else 0.2)

    def stir() -> None:
        while not over.wait(0.05):
            os.utime(file, (time.time() - 300,) * 2)

    over, thread = threading.Event(), threading.Thread(target=stir)
    if stirs:
        thread.start()
    try:
        with pytest.raises(Taken) if stirs else nullcontext() as taken, hold(place):
            pass
    finally:
        over.set()
    if stirs:
        thread.join()
        assert not taken.value.holder.is_silent
    assert file.exists() == stirs


@pytest.mark.parametrize("lives", [True, False])
def test_what_an_old_listing_does_not_show_is_found_by_its_name(
    lives: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network disks list a folder as it was up to a minute ago, until one changes it oneself."""
    place = tmp_path / "place"
    write(place, ELSEWHERE if lives else own(started="1"))
    listed = os.scandir
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    changed = place.with_name("place.2")
    monkeypatch.setattr(os, "scandir", lambda at: listed(at if changed.exists() else nothing))
    assert (holder_of(place) is not None) == lives
    with pytest.raises(Taken, match="node3") if lives else nullcontext(), hold(place):
        assert sorted(each.name for each in tmp_path.iterdir()) == ["nothing", "place.2"]


def own(**changes: Any) -> Holder:
    return replace(this_process(), **changes)


def test_another_users_process_that_proc_does_not_show_lives_while_it_renews(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)  # it is there, and none of ours
    hidden = own(pid=2**22 + 1)  # beyond the kernel's largest
    for age, lives in ((5.0, True), (LAPSE + 5, False)):
        write(tmp_path / "place", hidden, age)
        assert (holder_of(tmp_path / "place") is not None) == lives


def test_a_process_of_this_machine_is_not_waited_for_because_it_is_stopped(tmp_path: Path) -> None:
    """Its lease does not lapse, so to wait would have no end."""
    place = tmp_path / "place"
    write(place, own(), age=LAPSE + 5)
    with pytest.raises(Taken), hold(place, wait=lambda each: each.is_silent):
        pass


@pytest.mark.parametrize("changes", [{"started": "1"}, {"pid": 2**22 + 1}])
def test_on_this_machine_a_process_that_is_gone_holds_nothing(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path / "place", own(**changes))
    assert holder_of(tmp_path / "place") is None


def test_a_process_that_nobody_waited_for_holds_nothing(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        signal.pause()
    write(tmp_path / "place", own(pid=child, started=_started(child)))
    assert holder_of(tmp_path / "place") is not None
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert holder_of(tmp_path / "place") is None
    os.waitpid(child, 0)


def test_a_job_that_was_started_again_takes_what_it_held_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "place", replace(ELSEWHERE, job="77", restarts=1))
    for job, restarts, lives in [("77", "1", True), ("78", "2", True), ("77", "2", False)]:
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        assert (holder_of(tmp_path / "place") is not None) == lives


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"host": 1}', "[" * 4096])
def test_a_lease_that_says_nothing_counts_while_it_is_young(text: str, tmp_path: Path) -> None:
    file = tmp_path / "place.1"
    file.write_text(text)
    assert holder_of(tmp_path / "place") is not None
    os.utime(file, (time.time() - 2 * LAPSE,) * 2)
    assert holder_of(tmp_path / "place") is None


def test_a_disk_that_takes_no_more_keeps_no_half_of_a_lease(tmp_path: Path) -> None:
    """It would be one, of nobody, when there is room again."""
    place, (soft, hard) = tmp_path / "place", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught, hold(place):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == f"{place}.1"
    assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_who_lost_its_lease_ends_and_leaves_the_other_one_alone(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tasks import lease\n"
        "lease.RENEW = 0.05\n"
        "with lease.hold(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "place")]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **options) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (file,) = tmp_path.iterdir()
        before = file.stat().st_mtime_ns
        wait_for(lambda: file.stat().st_mtime_ns > before)  # it is renewed
        other = write(tmp_path / "place", ELSEWHERE)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "process 7 on node3 has taken over" in said
    assert json.loads(other.read_text())["token"] == "theirs"


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
