"""One run on two nodes: two network namespaces of this machine, joined by a cable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY
from tests.training.test_distributed import QUIET, assert_same_curve, record, script_of, train

pytestmark = pytest.mark.cluster

# what a killed run left has other names
NODES = {f"chela{os.getpid()}-{n}": f"10.77.0.{n}" for n in (1, 2)}
DIE_AT_7 = """
import os, signal
from chela.training.history import History
original = History.on_train_batch_end
def patched(self, trainer, *rest):
    if trainer.global_step == 7 and trainer.global_rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, trainer, *rest)
History.on_train_batch_end = patched
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def nodes() -> Iterator[None]:
    for name in NODES:
        ip("netns", "add", name)
    try:
        first, second = NODES
        cable = ["link", "add", "cable", "netns", first, "type", "veth"]
        ip(*cable, "peer", "name", "cable", "netns", second)
        for name, address in NODES.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
        yield
    finally:
        for name in NODES:
            ip("netns", "delete", name)


def on_two_nodes(place: Path, data: Path, before: str = "", port: int = 29500) -> list[str]:
    """What the two nodes say, each with a process of one run; they end with the same status."""
    script = script_of(place, before)
    address = [f"--master-addr={next(iter(NODES.values()))}", f"--master-port={port}"]
    words = [*TINY, *QUIET, f"data_dir={data}", f"output_dir={place}"]
    started = [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1", *address),
                *(str(script), *words),
            ],
            cwd=ROOT,
            env={**os.environ, "GLOO_SOCKET_IFNAME": "cable", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, name in enumerate(NODES)
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    statuses = {process.returncode for process in started}
    assert statuses == ({1} if before else {0}), said
    return said


def test_two_nodes_are_one_run_and_a_dead_one_ends_it_with_a_message(
    tmp_path: Path, shared_data: Path, nodes: None
) -> None:
    one, two, broken, alone = (tmp_path / each for each in ("one", "two", "broken", "alone"))
    result = train(one, shared_data, "trainer.devices=2")
    assert result.returncode == 0, result.stderr
    first, second = on_two_nodes(two, shared_data)
    assert "2 nodes with 1 x cpu" in first
    assert "test accuracy" in first
    assert "test accuracy" not in second
    assert_same_curve(one, two)

    said, _ = on_two_nodes(broken, shared_data, DIE_AT_7, port=29501)
    assert "cannot go on: another of its processes is gone" in said
    assert "the last checkpoint is in" in said
    assert record(broken)["status"] == "failed"
    shutil.copytree(broken, alone)
    again, _ = on_two_nodes(broken, shared_data, port=29502)
    assert "resuming   at step" in again
    assert_same_curve(two, broken)

    result = train(alone, shared_data)  # one process goes on with what two nodes began
    assert result.returncode == 0, result.stderr
    assert "resuming   at step" in result.stdout
    assert_same_curve(two, alone)
