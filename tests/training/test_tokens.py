"""A task of one's own that asks at positions: trained, tested, resumed, shared by two processes."""

from __future__ import annotations

import importlib
import itertools
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from chela.hub import load_run
from chela.records.collect import collect
from chela.report.published import published
from chela.report.table import build
from chela.training.run import run
from tasks.loader import DiskReader
from tasks.resident import DeviceReader
from tasks.storage.columns import stored_rows
from tasks.storage.meta import SplitCounts, fingerprint
from tasks.storage.rows import NOTHING
from tests.conftest import ROOT, TINY
from tests.training.runs import folder_of, record_of
from tests.training.test_distributed import CURVE, QUIET, assert_same_rows, train
from tests.training.test_distributed import record as record_below
from tests.training.test_resume import assert_resumes

pytestmark = pytest.mark.training

CODE = '''
"""Associative recall: pairs of a key and a value, then some of the keys again, to be answered."""

from dataclasses import dataclass

import numpy as np

from tasks.base import Task, TaskSpec
from tasks.storage.meta import Origin
from tasks.storage.rows import NOTHING, Rows, offsets_of

KEYS = VALUES = 8


@dataclass(frozen=True)
class RecallConfig:
    """Its keys in the configuration."""

    name: str
    num_train: int = 200
    most_pairs: int = 4


class Recall(Task):
    """Symbols 1 to 8 are keys, 9 to 16 values; a sample has no padding of its own."""

    version = 1
    Config = RecallConfig

    @property
    def spec(self):
        longest = 3 * self.config.most_pairs
        return TaskSpec(
            self.name, 1 + KEYS + VALUES, longest, 1 + KEYS + VALUES, 1, objective="tokens"
        )

    def origin(self):
        return Origin(self.name, 1, "generated", {"num_train": self.config.num_train})

    def sample(self, split, index):
        return " ".join(map(str, self.split(split)[index]["values"]))

    def rows(self):
        random = np.random.Generator(np.random.PCG64(7))
        for split, n in (("train", self.config.num_train), ("val", 50), ("test", 50)):
            values, targets, lengths = [], [], []
            for _ in range(n):
                pairs = int(random.integers(1, self.config.most_pairs + 1))
                keys = 1 + random.choice(KEYS, pairs, replace=False)
                answers = 1 + KEYS + random.integers(0, VALUES, pairs)
                asked = random.permutation(pairs)[: random.integers(1, pairs + 1)]
                values += [*np.stack([keys, answers], 1).flatten(), *keys[asked]]
                targets += [*[NOTHING] * (2 * pairs), *answers[asked]]
                lengths.append(2 * pairs + len(asked))
            yield (
                split,
                Rows(
                    np.array(values, np.uint8),
                    offsets_of(np.array(lengths)),
                    np.zeros(n, np.int64),
                    np.array(targets, np.int32),
                ),
            )


class RecallByLoss(Recall):
    metric = "loss"
'''
OWN = [each for each in TINY if not each.startswith("task")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configurations, the task and its data."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "recall_of_my_own.py").write_text(CODE)
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name, target in (("recall", "Recall"), ("recall_by_loss", "RecallByLoss")):
        (folder / "configs" / "task" / f"{name}.yaml").write_text(
            f"_target_: recall_of_my_own.{target}\nname: recall\nnum_train: 200\nmost_pairs: 4\n"
        )
    return folder


@pytest.fixture
def recall(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``recall("model.depth=2")``: the tiny configuration of the task, with overrides."""
    monkeypatch.syspath_prepend(str(place))
    torch.set_num_threads(1)

    def composed(*overrides: str, task: str = "recall") -> DictConfig:
        places = [f"data_dir={place / 'data'}", f"output_dir={tmp_path / 'outputs'}"]
        with initialize_config_dir(str(place / "configs"), version_base="1.3"):
            return compose("config", [*OWN, f"task={task}", *places, *overrides])

    return composed


def test_each_target_is_tested_once(recall) -> None:
    """Whatever the batches: the loss and the hits of each, added up one sample after the other."""
    config = recall("trainer.eval_batch_size=7")
    best = run(config)
    record = record_of(config)
    module = importlib.import_module("recall_of_my_own")
    loaded = load_run(folder_of(config), classes=[module.Recall])
    counts = {name: SplitCounts() for name in ("train", "val", "test")}
    for name, count in counts.items():
        for rows in stored_rows(loaded.task.split(name)):
            assert rows.targets is not None
            count.add(rows)
    assert fingerprint(1, counts) == loaded.task.meta.fingerprint
    losses, hits = [], []
    for rows in stored_rows(loaded.task.test):
        for values, targets in zip(
            np.split(rows.values, rows.offsets[1:-1]),
            np.split(rows.targets, rows.offsets[1:-1]),
            strict=True,
        ):
            with torch.no_grad():
                scores = loaded.model(torch.tensor(values)[None].long())[0].double()
            for position in np.flatnonzero(targets != NOTHING):
                answer = int(targets[position])
                losses.append(-float(scores[position].log_softmax(-1)[answer]))
                hits.append(int(scores[position].argmax()) == answer)
    tested = record["test"]
    n, accuracy = len(hits), float(np.mean(hits))
    assert (tested["n"], tested["primary"]) == (n, "accuracy")
    assert tested["metrics"]["accuracy"] == {
        "value": pytest.approx(accuracy),
        "unit": "fraction",
        "direction": "max",
        "standard_error": pytest.approx((accuracy * (1 - accuracy) / n) ** 0.5),
    }
    assert tested["metrics"]["loss"]["value"] == pytest.approx(np.mean(losses), rel=1e-5)
    error = np.std(losses) / n**0.5
    assert tested["metrics"]["loss"]["standard_error"] == pytest.approx(error, rel=1e-4)
    assert tested["metrics"]["perplexity"]["value"] == pytest.approx(np.exp(np.mean(losses)))
    assert "majority_class_accuracy" not in tested
    assert record["best"]["value"] == best


def test_it_learns_what_it_is_asked(recall) -> None:
    longer = ["trainer.max_steps=60", "trainer.validate_every_steps=60", "model.dropout=0"]
    config = recall(*longer, "optimizer.lr=0.02")
    run(config)
    losses = [row["train/loss"] for row in record_of(config)["metrics"] if "train/loss" in row]
    assert losses[-1] < 2.2 < losses[0]  # ln 8: the values alone


def test_interrupted_and_resumed_is_uninterrupted(recall, monkeypatch, tmp_path) -> None:
    whole, broken = recall(f"output_dir={tmp_path / 'whole'}"), recall()
    assert_resumes(monkeypatch, whole, broken)


def test_micro_batches_add_up_to_the_batch(recall) -> None:
    """Though each has another number of targets."""
    still = ["model.dropout=0", "trainer.log_every_steps=1"]
    whole, parts = recall(*still), recall(*still, "trainer.micro_batch_size=4")
    run(whole), run(parts)
    for one, other in zip(record_of(whole)["metrics"], record_of(parts)["metrics"], strict=True):
        for name in ("train/loss", "train/accuracy", "gradient_norm"):
            assert one.get(name) == pytest.approx(other.get(name), rel=1e-4), name


def test_the_lowest_loss_selects_where_a_task_says_so(recall) -> None:
    config = recall("trainer.validate_every_steps=2", "optimizer.lr=0.3", task="recall_by_loss")
    best = run(config)
    record = record_of(config)
    losses = {row["step"]: row["val/loss"] for row in record["metrics"] if "val/loss" in row}
    assert len(losses) == 6
    assert max(losses.values()) > best == min(losses.values())
    assert record["best"] == {"step": min(losses, key=lambda step: losses[step]), "value": best}
    assert record["protocol"]["selection"].startswith("lowest loss on the whole validation split")
    report = build(collect([Path(config.output_dir)]), published())
    (column,) = report.columns
    assert (column.metric, column.unit, column.direction) == ("loss", "nats", "min")
    tested = record["test"]["metrics"]["loss"]
    ((_, (cell,)),) = report.ours
    assert (cell.value, cell.metric, cell.unit) == (tested["value"], "loss", "nats")
    assert cell.standard_error == pytest.approx(tested["standard_error"])


def test_a_copy_on_a_device_gives_the_same_targets(recall) -> None:
    config = recall()
    run(config)
    task = load_run(folder_of(config), classes=[sys.modules["recall_of_my_own"].Recall]).task
    rows = [list(range(start, start + 5)) for start in range(0, 20, 5)]
    on_disk = DiskReader(task.train, task.encoding).read(rows)
    resident = DeviceReader(task.train, task.encoding, torch.device("cpu")).read(rows)
    for one, other in itertools.zip_longest(on_disk, resident):
        width = one.values.shape[1]
        assert one.targets.dtype == other.targets.dtype == torch.int64
        assert torch.equal(one.targets, other.targets[:, :width])
        assert (other.targets[:, width:] == NOTHING).all()
        assert torch.equal(one.values, other.values[:, :width])


def test_two_processes_are_one_run(recall, place: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(place))
    one, two = tmp_path / "one", tmp_path / "two"
    run(recall(*QUIET, f"output_dir={one}"))
    chosen = ["task=recall", "trainer.devices=2", f"--config-dir={place / 'configs'}"]
    result = train(two, place / "data", *chosen, base=OWN)
    assert result.returncode == 0, result.stderr
    assert record_below(one)["test"]["n"] == record_below(two)["test"]["n"]
    assert_same_rows(one, two, CURVE, rel=1e-5, within=1e-6)
