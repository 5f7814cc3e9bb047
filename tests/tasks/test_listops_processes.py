"""The processes that generate ListOps: bounded in memory, and gone when they are not needed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tasks.errors import DataError
from tasks.listops import generator
from tasks.listops.generator import ListOpsLaw, generate

pytestmark = pytest.mark.process

REAL = ListOpsLaw()


@pytest.mark.parametrize("sending", [False, True])
def test_a_killed_process_is_an_error_and_not_a_hang(sending: bool) -> None:
    """In the midst of a block that it has begun to send, too."""
    trees = generate(10**6, REAL, seed=0, workers=2)
    next(trees)
    next(trees)
    if sending:  # a block is more than a pipe holds: it waits there, cut short
        time.sleep(2)
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, signal.SIGKILL)
    with pytest.raises(DataError, match=r"killed(.|\n)*workers=1"):
        list(trees)


def test_leaving_early_ends_the_processes() -> None:
    trees = generate(10**6, REAL, seed=0, workers=2)
    next(trees)
    next(trees)
    assert multiprocessing.active_children()
    trees.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_a_process_waits_until_its_block_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly that goes: no more than one block of each is in the memory."""
    drawn: list[int] = []

    def draw(law: ListOpsLaw, seed: int, index: int) -> bytes:
        drawn.append(index)
        return bytes(1 << 20)  # more than a pipe holds

    monkeypatch.setattr(generator, "draw_block", draw)
    reader, writer = multiprocessing.Pipe(duplex=False)
    thread = threading.Thread(target=generator._draw, args=(writer, REAL, 0, 2, 3))
    thread.start()
    for taken in range(3):
        assert reader.poll(20)  # it has begun to send
        assert drawn == [2, 5, 8][: taken + 1]
        reader.recv()
    reader.close()
    thread.join(20)
    assert not thread.is_alive()


ENDLESS = """
from tasks.listops.generator import *
try:
    for _ in generate(10**6, ListOpsLaw(), 0, 2):
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
except KeyboardInterrupt:
    print("interrupted")
"""


AT_ITS_START = """
import os, signal
from multiprocessing.context import SpawnProcess
start = SpawnProcess.start
SpawnProcess.start = lambda process: (start(process), os.kill(process.pid, signal.SIGINT))
"""


def started(before: str = "") -> tuple[subprocess.Popen[str], list[int]]:
    """A process that generates without end, and the processes that it has started.

    Args:
        before: what it does first.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", before + ENDLESS],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        children = [int(word) for word in line.split()]
        if len(children) == 2:
            return process, children
    raise AssertionError(process.stderr.read())


def are_gone(children: list[int]) -> bool:
    def runs(child: int) -> bool:
        try:
            os.kill(child, 0)
            return Path(f"/proc/{child}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
        except (ProcessLookupError, FileNotFoundError):
            return False

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(runs(child) for child in children):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("before", ["", AT_ITS_START])
def test_ctrl_c_is_for_the_parent_alone(before: str) -> None:
    """Where it comes before a process has imported anything, too."""
    process, children = started(before)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "interrupted"
    assert err == ""
    assert are_gone(children)


def test_the_processes_end_with_their_parent_even_if_it_is_killed() -> None:
    process, children = started()
    process.kill()
    assert are_gone(children)
    process.communicate()
