"""Kill trainings at random moments, repeat the command, and compare with a run left alone.

    python -m tests.kills FOLDER --tee 50 --workers 50 --launcher 5

Each number is of signals to the whole process group of `train.py ... | tee log`: by itself, with
processes that read data, as a sweep whose cells are processes. They are drawn from SIGKILL and
those that ask to stop. What ends must end as it should, leave nothing running, and say the truth;
repeated until it is finished, the run must have computed the same, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch

from tasks.signals import STOPPING
from tests.conftest import ROOT, TINY
from tests.test_launcher import pids
from tests.training.test_resume import same, without_speed

STEPS = 60
LONGER = [f"trainer.max_steps={STEPS}", "trainer.validate_every_steps=20"]
OVERRIDES = [*TINY, *LONGER, "trainer.checkpoint_every_steps=3", "trainer.progress=true"]
AT_ONCE = ["-m", "seed=0,1", "hydra/launcher=processes", "hydra.launcher.at_once=2"]
KINDS = {"tee": [], "workers": ["trainer.num_workers=2"], "launcher": AT_ONCE}
SIGNALS = [signal.SIGKILL, *STOPPING]
END = 60.0  # seconds within which all processes of a killed command are gone


def start(arguments: list[str], log: Path) -> int:
    """``train.py ARGUMENTS 2>&1 | tee LOG`` in a session of its own; returns its process."""
    child = os.fork()
    if child:
        return child
    status: object = 1
    try:
        os.setsid()
        with log.open("ab") as kept:
            tee = subprocess.Popen(["tee"], stdin=subprocess.PIPE, stdout=kept)
        assert tee.stdin is not None
        os.dup2(tee.stdin.fileno(), 1)
        os.dup2(1, 2)
        tee.stdin.close()
        sys.argv = [str(ROOT / "train.py"), *arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code or 0
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(status if isinstance(status, int) else 1)


def wait_until_gone(child: int, place: Path) -> None:
    """Until no process of the command is left; the one that was started has been waited for."""
    end = time.monotonic() + END
    while True:
        with suppress(ProcessLookupError):
            os.killpg(child, 0)
            assert time.monotonic() < end, f"processes of group {child} go on"
            time.sleep(0.05)
            continue
        if not pids(place):
            return
        assert time.monotonic() < end, f"cells in {place} go on: {pids(place)}"
        time.sleep(0.1)


def runs(place: Path) -> list[Path]:
    """The folders of the runs, by seed."""
    return sorted(file.parent for file in place.glob("*/seed?/record.json"))


def began_to_train(folder: Path, since: float) -> bool:
    """Whether a run has come to its steps since a time, or had been finished before."""
    record = json.loads((folder / "record.json").read_text())
    progress = folder / "progress.json"
    return record["status"] == "finished" or (
        progress.exists() and progress.stat().st_mtime > since
    )


def check(status: int, number: int, place: Path, since: float, kind: str) -> str:
    """Whether a command that got a signal ended as it should; returns how.

    Args:
        status: its exit status.
        number: the signal's.
        place: its output_dir.
        since: time.time() of its start.
        kind: one of ``KINDS``.
    """
    if number == signal.SIGKILL:
        assert status == -number, status
        return "killed"
    statuses = {json.loads((each / "record.json").read_text())["status"] for each in runs(place)}
    assert "failed" not in statuses, place
    if status == 128 + number:
        trained = [each for each in runs(place) if began_to_train(each, since)]
        for each in trained:
            content = json.loads((each / "record.json").read_text())
            assert content["status"] in ("interrupted", "finished"), (place, content["status"])
        return "saved" if trained else "stopped before its first step"
    if status == 0:  # it came behind the last step
        return "finished"
    assert status == -number, (place, status)
    if kind != "launcher" and statuses == {"finished"}:  # it came as the finished process ended
        return "finished"
    if kind != "launcher":
        late = [each for each in runs(place) if began_to_train(each, since)]
        assert not late, f"{late} trained and did not save"
    return "stopped before its first step"


def assert_same(place: Path, whole: Path) -> None:
    """All that was computed is the same in both folders."""
    assert len(runs(place)) == len(runs(whole)) > 0
    for one, other in zip(runs(place), runs(whole), strict=True):
        record, expected = (json.loads((f / "record.json").read_text()) for f in (one, other))
        assert record["status"] == "finished", one
        assert record["training"]["steps"] == STEPS
        for part in ("best", "test", "run_id"):
            assert record[part] == expected[part], (one, part)
        assert record["training"]["tokens"] == expected["training"]["tokens"]
        assert without_speed(record["metrics"]) == without_speed(expected["metrics"]), one
        last, wanted = (
            torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (one, other)
        )
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert same(last[part], wanted[part]), (one, part)


def kill(kind: str, count: int, folder: Path, seed: int) -> Counter[str]:
    """Send ``count`` signals to commands of a kind; returns what became of these."""
    chance = random.Random(f"{kind}{seed}")
    data = f"data_dir={folder / 'data'}"
    whole = folder / f"{kind}-whole"
    arguments = [*KINDS[kind], *OVERRIDES, data]
    began = time.monotonic()
    child = start([*arguments, f"output_dir={whole}"], folder / f"{kind}-whole.log")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, folder / f"{kind}-whole.log"
    seconds = time.monotonic() - began
    became: Counter[str] = Counter()
    rounds = 0
    while became.total() < count:
        rounds += 1
        place, log = folder / f"{kind}-{rounds}", folder / f"{kind}-{rounds}.log"
        finished = False
        while not finished:
            since = time.time()
            child = start([*arguments, f"output_dir={place}"], log)
            if became.total() < count:
                time.sleep(chance.uniform(0.1, 1.0) * seconds)
                number = chance.choice(SIGNALS)
                with suppress(ProcessLookupError):
                    if os.waitpid(child, os.WNOHANG)[0]:
                        break
                    os.killpg(child, number)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                wait_until_gone(child, place)
                how = check(status, number, place, since, kind)
                became[how] += 1
                finished = status == 0
            else:
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                assert status == 0, (log, status)
                finished = True
        wait_until_gone(child, place)
        assert_same(place, whole)
        print(f"{kind}: {became.total()} of {count}, {dict(became)}", flush=True)
    return became


def main(arguments: list[str]) -> None:
    """Kill as the command line says, and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0)
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    total: Counter[str] = Counter()
    for kind in KINDS:
        if count := getattr(given, kind):
            total += kill(kind, count, folder, given.seed)
    print(f"{total.total()} signals: {dict(total)}; everything was computed as without")


if __name__ == "__main__":
    main(sys.argv[1:])
