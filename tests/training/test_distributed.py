"""Two processes compute what one does with the same global batch; interrupted or not."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from chela.errors import RunError
from chela.training import distributed
from chela.training.run import run
from tests.conftest import ROOT, TINY

pytestmark = pytest.mark.process

CURVE = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "gradient_norm")
QUIET = ["model.dropout=0", "trainer.log_every_steps=1", "trainer.checkpoint_every_steps=1"]


def script_of(output: Path, before: str) -> Path:
    """train.py after a line of Python, in a file beside the folder of its runs."""
    script = output.parent / f"{output.name}.py"
    script.write_text(
        f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch; torch.set_num_threads(1)\n"
        f"{before}\n"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    )
    return script


def train(
    output: Path, data: Path, *overrides: str, before: str = "", base: Sequence[str] = TINY
) -> subprocess.CompletedProcess:
    """train.py in a process of its own, after a line of Python."""
    places = [f"data_dir={data}", f"output_dir={output}"]
    script = script_of(output, before)
    return subprocess.run(
        [sys.executable, str(script), *base, *QUIET, *places, *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def rows(output: Path) -> list[dict[str, str]]:
    (file,) = output.glob("*/seed0/metrics.csv")
    return list(csv.DictReader(file.open()))


def record(output: Path) -> dict:
    (file,) = output.glob("*/seed0/record.json")
    return json.loads(file.read_text())


def assert_same_rows(
    one: Path, two: Path, names: Sequence[str], rel: float, within: float = 1e-12
) -> None:
    """Both have the same numbers in the same rows, relatively or absolutely."""
    for a, b in zip(rows(one), rows(two), strict=True):
        for name in names:
            assert (a[name] == "") == (b[name] == ""), name
            if a[name]:
                assert float(b[name]) == pytest.approx(float(a[name]), rel=rel, abs=within), name


def assert_same_curve(one: Path, two: Path) -> None:
    assert len(rows(one)) == len(rows(two)) == 12
    assert_same_rows(one, two, CURVE, rel=1e-6, within=1e-6)
    first, second = record(one), record(two)
    assert second["test"]["n"] == first["test"]["n"] == 50
    losses = [each["test"]["metrics"]["loss"]["value"] for each in (first, second)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert second["training"]["tokens"] == first["training"]["tokens"]


STOP_AT_7 = """
import os, signal
from chela.training.history import History
original = History.on_train_batch_end
def patched(self, trainer, *rest):
    if trainer.global_step == 7:
        os.kill(trainer.strategy.launcher.procs[0].pid, signal.SIGTERM)
    original(self, trainer, *rest)
History.on_train_batch_end = patched
"""

CPU = TINY
# Batches are padded to 40, and to 32 where they are sorted by length; with what TINY says, to 16,
# too. Each length has kernels to compile and a graph to record.
LENGTHS = ["task.min_length=28", "task.max_length=40"]
GPU = [
    *(TINY + LENGTHS),
    *("trainer.accelerator=gpu", "trainer.step=graph", "model.dim=32", "model.mixer.qk_dim=32"),
]
TWO_GPUS = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs"),
]
ON_GPU = pytest.param(GPU, marks=TWO_GPUS)
# What needs the whole batch: its statistics, its lengths, and gradients that are all there.
HARD = [
    "model.norm=batch",
    "optimizer=muon",
    "optimizer.lr=1e-3",
    "trainer.length_window=4",
    "trainer.max_skipped_steps=2",
    "trainer.max_steps=20",
]
# In the sixth step and the last a gradient of the first process is not finite, in the ninth an
# update of it.
POISON = """
from chela.training import module, muon
original, steps = module.add_up_gradients, []
def poisoned(model):
    steps.append(model)
    if len(steps) in (6, 20):  # only the first one runs this
        next(model.parameters()).grad.view(-1)[0] = torch.inf
    original(model)
module.add_up_gradients = poisoned
right = muon.orthogonalize
muon.orthogonalize = lambda x: right(x) * (1e9 if len(steps) == 9 else 1)
"""


@pytest.mark.parametrize(
    ("where", "precision", "rel"),
    [
        (CPU, "float32", 1e-5),
        pytest.param(GPU, "float32", 1e-3, marks=TWO_GPUS),  # Muon's iteration is in bf16 there
        pytest.param(GPU, "bf16", 2e-2, marks=TWO_GPUS),
    ],
)
def test_two_processes_compute_what_one_does(
    where, precision: str, rel: float, tmp_path: Path, shared_data: Path
) -> None:
    exact = where is CPU
    for devices in (1, 2):
        words = [*HARD, f"trainer.precision={precision}", f"trainer.devices={devices}"]
        poison = POISON if exact else ""  # which cannot be recorded
        result = train(tmp_path / str(devices), shared_data, *words, before=poison, base=where)
        assert result.returncode == exact, result.stderr
        assert result.stderr.count("at step 20, after 2 skipped ones") == exact
    one, two = (rows(tmp_path / str(devices)) for devices in (1, 2))
    assert len(one) == len(two) == 20 - exact
    names = ["train/loss", "val/loss", "gradient_norm"]
    assert_same_rows(tmp_path / "1", tmp_path / "2", names, rel)
    if not exact:
        return
    assert one[5]["gradient_norm"] == two[5]["gradient_norm"] == "inf"
    assert record(tmp_path / "2")["training"]["skipped_steps"] == 2  # before the last one
    kept = [
        torch.load(file, weights_only=True)["rows"]
        for devices in (1, 2)
        for file in (tmp_path / str(devices)).glob("*/seed0/nonfinite.pt")
    ]
    assert kept[0] == kept[1]


def test_two_processes_are_one_run(composed, tmp_path: Path, shared_data: Path) -> None:
    """Stopped by a signal that reaches only the second of them, too, and gone on with."""
    one, broken = tmp_path / "one", tmp_path / "broken"
    run(composed(*QUIET, f"output_dir={one}"))  # one process: this one
    stopped = train(broken, shared_data, "trainer.devices=2", before=STOP_AT_7)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert record(broken)["status"] == "interrupted"
    assert 7 <= record(broken)["training"]["steps"] < 12
    # what is there is moved aside before the second process begins, the named checkpoint with it
    (seed,) = broken.glob("*/seed0")
    shutil.copytree(seed / "checkpoints", seed / "kept")
    named = f"resume={seed}/kept/last.ckpt"
    resumed = train(broken, shared_data, "trainer.devices=2", named)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("test accuracy") == 1
    assert_same_curve(one, broken)
    assert [*broken.iterdir()] == [seed.parent]


@pytest.mark.parametrize("where", [ON_GPU])
def test_two_gpus_go_on_as_if_they_had_not_stopped(
    where, tmp_path: Path, shared_data: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    words = ["trainer.devices=2", "trainer.deterministic=true", "optimizer=muon"]
    for output, before, status in (
        (whole, "", 0),
        (broken, STOP_AT_7, 128 + signal.SIGTERM),
        (broken, "", 0),
    ):
        result = train(output, shared_data, *words, before=before, base=where)
        assert result.returncode == status, result.stderr
    assert_same_curve(whole, broken)


@pytest.mark.parametrize("where", [ON_GPU])
def test_one_gpu_goes_on_with_what_two_began(where, tmp_path: Path, shared_data: Path) -> None:
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    for output, devices, before, status in (
        (whole, 1, "", 0),
        (begun, 2, STOP_AT_7, 128 + signal.SIGTERM),
        (begun, 1, "", 0),
    ):
        words = ["trainer.precision=float32", f"trainer.devices={devices}"]
        result = train(output, shared_data, *words, before=before, base=where)
        assert result.returncode == status, result.stderr
    assert len(rows(whole)) == len(rows(begun)) == 12
    for a, b in zip(rows(whole), rows(begun), strict=True):
        assert float(b["train/loss"]) == pytest.approx(float(a["train/loss"]), rel=1e-4)
    assert record(begun)["test"]["n"] == record(whole)["test"]["n"] == 50


LOSE_AT_7 = """
import os, signal
from chela.training import distributed
from chela.training.history import History
distributed.PATIENCE = 1.0
original = History.on_train_batch_end
def patched(self, trainer, *rest):
    if trainer.global_step == 7 and trainer.is_global_zero:
        os.kill(VICTIM, signal.SIGKILL)
    original(self, trainer, *rest)
History.on_train_batch_end = patched
"""


@pytest.mark.parametrize("where", [CPU, ON_GPU])
def test_a_process_that_dies_is_told_in_a_sentence(
    where, tmp_path: Path, shared_data: Path
) -> None:
    lose = LOSE_AT_7.replace("VICTIM", "trainer.strategy.launcher.procs[0].pid")
    result = train(tmp_path / "two", shared_data, "trainer.devices=2", before=lose, base=where)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "cannot go on: its process 1 was killed by SIGKILL" in result.stderr
    assert "the last checkpoint is in" in result.stderr
    assert record(tmp_path / "two")["status"] == "failed"


KEEP_AVERAGES = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from chela.training.module import TrainingModule as Module
def kept(self):
    norms = dict((name, x) for name, x in self.model.state_dict().items() if "running" in name)
    file = "averages-%d-%d.pt" % (self.trainer.global_rank, self.global_step)
    torch.save(norms, os.path.join(os.environ["PYTHONPATH"], file))
    if (self.trainer.global_rank, self.global_step) == (1, 12):
        next(self.model.parameters()).detach().view(torch.int32).view(-1)[3] += 1  # the last bit
Module.on_validation_epoch_start = kept
"""


def test_two_processes_evaluate_the_same_model_or_stop(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the same averages; and when a bit of a weight differs, they are not one run."""
    (tmp_path / "sitecustomize.py").write_text(KEEP_AVERAGES)  # which every process imports
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = train(tmp_path / "two", shared_data, "trainer.devices=2", "model.norm=batch")
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("the weights in process 1 are not those in process 0") == 1
    assert record(tmp_path / "two")["status"] == "failed"
    for step in (5, 10, 12):
        first, second = (torch.load(tmp_path / f"averages-{rank}-{step}.pt") for rank in (0, 1))
        assert first
        for name, value in first.items():
            assert torch.equal(value, second[name]), name
            assert not torch.equal(value, torch.zeros_like(value))


@pytest.mark.parametrize(
    ("wrong", "said"), [([], ""), ([0], "in process 0 .* process 1"), ([1, 3], "in process 1, 3 ")]
)
def test_who_has_other_weights_than_most_is_named(
    wrong: list[int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Linear(3, 2)
    model.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def all_reduce(found: torch.Tensor) -> None:
        found.fill_(found.sum())
        found[wrong] += 1

    monkeypatch.setattr(distributed, "processes", lambda: 5)
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 2)
    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    with pytest.raises(RunError, match=f"the weights {said}") if said else nullcontext():
        distributed.refuse_apart(model)
