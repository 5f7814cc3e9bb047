"""One sweep of six small cells, by each engine, with what happens to jobs: the same to the bit.

    make test-cluster

One cell cannot be run (three heads of 16 channels). Of the others some are pre-empted, told that
their time is up, or killed, and the sweep is repeated where that is what one would do.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from chela.records.state import lease_of
from chela.records.sweeps import read_cells
from tasks.holder import Holder
from tasks.lease import holder_of
from tests.conftest import ROOT, TINY
from tests.training.test_resume import same, without_speed

pytestmark = pytest.mark.cluster

T = TypeVar("T")

STEPS = 300
HEADS = "model.mixer.num_heads=1,2,4,3,8,16"
LONGER = [f"trainer.max_steps={STEPS}", "trainer.validate_every_steps=100"]
SWEEP = ["-m", *TINY, *LONGER, "trainer.checkpoint_every_steps=5", "model.mixer.qk_dim=16", HEADS]
SLURM = ["hydra/launcher=slurm", "hydra.launcher.partition=debug", "hydra.launcher.mem_gb=0.9"]
SLURM += ["hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1"]
RAY = ["hydra/launcher=ray", "hydra.launcher.ray.remote.num_gpus=0"]
RAY += ["hydra.launcher.ray.remote.num_cpus=1", "+hydra.launcher.ray.init.num_cpus=2"]
AT_ONCE = ["hydra/launcher=processes", "hydra.launcher.at_once=2"]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def begin(place: Path, data: Path, *launcher: str) -> subprocess.Popen[str]:
    """The sweep, with what it says in ``place/output.log``."""
    place.mkdir(parents=True, exist_ok=True)
    words = [*SWEEP, *launcher, f"data_dir={data}", f"output_dir={place / 'outputs'}"]
    with (place / "output.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *words],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )


def said(place: Path) -> str:
    return "".join(file.read_text() for file in place.glob("output.log"))


def wait_for(what: Callable[[], T], place: Path) -> T:
    """The first true answer."""
    end = time.monotonic() + 240
    while not (answer := what()):
        assert time.monotonic() < end, said(place)
        time.sleep(0.1)
    return answer


def training(place: Path) -> dict[str, Holder]:
    """The processes of runs that have saved, and are not yet far, by the run's name."""
    found = {}
    for file in place.glob("outputs/*/seed0/checkpoints/last.ckpt"):
        run = file.parents[1]
        holder, progress = holder_of(lease_of(run)), run / "progress.json"
        if holder is not None and json.loads(progress.read_text())["step"] < STEPS // 2:
            found[run.parent.name] = holder
    return found


def another(place: Path, *known: str) -> tuple[str, Holder]:
    """A run that trains, and is none of those."""
    return wait_for(
        lambda: next((it for it in training(place).items() if it[0] not in known), None), place
    )


def records(place: Path) -> dict[str, dict]:
    files = place.glob("outputs/*/seed0/record.json")
    return {file.parents[1].name: json.loads(file.read_text()) for file in files}


def assert_same(place: Path, whole: Path) -> None:
    """Five cells are finished, as if nothing had happened; one has failed and says why."""
    ours, expected = records(place), records(whole)
    assert ours.keys() == expected.keys()
    assert len(ours) == 5
    for name, record in ours.items():
        assert record["status"] == "finished", (name, record["status"])
        for part in ("best", "test", "run_id"):
            assert record[part] == expected[name][part], (name, part)
        assert without_speed(record["metrics"]) == without_speed(expected[name]["metrics"])
        files = [each / "outputs" / name / "seed0/checkpoints/last.ckpt" for each in (place, whole)]
        last, wanted = (torch.load(file, weights_only=True) for file in files)
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert same(last[part], wanted[part]), (name, part)
    (folder,) = place.glob("outputs/sweeps/*")
    errors = [cell.error for cell in read_cells(folder).values() if cell.error is not None]
    assert len(errors) == 1
    assert "num_heads=3" in errors[0]
    assert "1 of 6 cells failed" in said(place)
    assert "num_heads=3" in said(place)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """By the local launcher, left alone."""
    place = tmp_path_factory.mktemp("whole")
    assert begin(place, data, *AT_ONCE).wait(400) == 1
    assert_same(place, place)
    return place


def test_three_processes_share_a_sweep_and_one_is_killed(
    tmp_path: Path, data: Path, whole: Path
) -> None:
    processes = [begin(tmp_path, data) for _ in range(3)]
    name, holder = another(tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    statuses = {process.pid: process.wait(400) for process in processes}
    assert statuses.pop(holder.pid) == -signal.SIGKILL
    assert set(statuses.values()) == {1}  # of one cell that failed
    assert_same(tmp_path, whole)
    sessions = {each: record["training"]["sessions"] for each, record in records(tmp_path).items()}
    assert sessions == {each: 1 + (each == name) for each in sessions}


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Slurm of this machine; the folder with its files, whose path is short for its sockets."""
    from chela.launch.slurm import in_queue  # here, for it needs an extra

    with tempfile.TemporaryDirectory(prefix="slurm") as name:
        folder = Path(name)
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            subprocess.run(["bash", str(ROOT / "tests/cluster/slurm.sh"), name], check=True)
            yield folder
            subprocess.run(["scancel", f"--user={os.getuid()}"], check=True)
            wait_for(lambda: in_queue() == set(), folder)
        finally:
            for file in [folder / f"{each}.pid" for each in ("slurmd", "slurmctld", "munged")]:
                if file.exists():
                    end(file)


def end(file: Path) -> None:
    """A daemon, by the file with its number."""
    pid = int(file.read_text())
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until, f"{file.stem} does not end"
        time.sleep(0.1)


def logs(place: Path) -> str:
    return "".join(file.read_text() for file in place.glob("outputs/slurm/*/*_log.out"))


def test_slurm_requeues_what_it_preempts_and_what_runs_out_of_time(
    tmp_path: Path, data: Path, whole: Path, slurm: Path
) -> None:
    sweep = begin(tmp_path, data, *SLURM)
    first, holder = another(tmp_path)
    # two others may be on the two cores: both are pre-empted
    subprocess.run(["srun", "--partition=urgent", "--ntasks=2", "true"], check=True)
    assert "SIGTERM: saving" in logs(tmp_path)
    second, holder = another(tmp_path, first)
    os.kill(holder.pid, signal.SIGUSR2)  # as Slurm does some time before the end
    wait_for(lambda: "SIGUSR2: saving" in logs(tmp_path), tmp_path)
    end(slurm / "slurmctld.pid")
    subprocess.run(["slurmctld"], stdin=subprocess.DEVNULL, check=True, start_new_session=True)
    third, holder = another(tmp_path, first, second)
    os.kill(holder.pid, signal.SIGKILL)
    assert sweep.wait(600) == 1
    assert "2 of 6 cells failed" in said(tmp_path)
    assert re.search(r"job \d+_\d left no word of its end", said(tmp_path))
    known = records(tmp_path)
    assert known.pop(third)["status"] == "running"  # it says so, and nobody holds it
    assert {record["status"] for record in known.values()} == {"finished"}
    assert known[first]["training"]["sessions"] > 1
    assert known[second]["training"]["sessions"] > 1
    assert begin(tmp_path, data, *SLURM).wait(400) == 1
    assert "2 jobs: " in said(tmp_path)  # what is finished is not submitted again
    assert_same(tmp_path, whole)


def test_ray_goes_on_with_what_is_killed(tmp_path: Path, data: Path, whole: Path) -> None:
    pytest.importorskip("ray")
    sweep = begin(tmp_path, data, *RAY)
    killed, holder = another(tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    stopped, holder = another(tmp_path, killed)
    os.kill(holder.pid, signal.SIGTERM)
    assert sweep.wait(600) == 1
    assert_same(tmp_path, whole)
    for name in (killed, stopped):
        assert records(tmp_path)[name]["training"]["sessions"] > 1
