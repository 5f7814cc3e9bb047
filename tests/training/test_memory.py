"""What a run will need of memory is told before its first step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from chela.config.schema import RunConfig, parse
from chela.doctor import diagnose
from chela.errors import RunError
from chela.model import BackboneConfig, Classifier
from chela.training import build, memory, room
from chela.training.engine import Engine
from chela.training.memory import Estimate, Need, estimate
from chela.training.optim import build_optimizer
from chela.training.run import run
from tasks.base import Task

CPU = Engine()
MIB = 2**20


class Scores(nn.Module):
    """A mixer of one's own with L x L scores."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        return (x @ x.mT).softmax(-1) @ x


def prepared(composed: Any, *overrides: str) -> tuple[RunConfig, Task, Classifier]:
    config = parse(composed(*overrides))
    task = build.build_task(config)
    task.prepare_data()
    task.setup()
    return config, task, build.build_model(config.model, task.spec)


@pytest.mark.parametrize(
    ("name", "size", "dim"), [("adamw", 16, 16), ("muon", 16, 16), ("muon", 1, 48)]
)
def test_the_estimate_is_that_of_the_whole_batch(
    name: str, size: int, dim: int, composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sample and two tell what sixteen need: all tensors that are alive at once, in a step."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)  # measured closely
    words = [f"optimizer={name}", f"trainer.micro_batch_size={size}", f"model.dim={dim}"]
    config, task, model = prepared(composed, *words)
    found = estimate(model, task, config, CPU).needs[0]
    batch = next(iter(_all_of_the_longest(task, size)))
    optimizer, alive = build_optimizer(model, config.optimizer), memory._Alive(None)
    with alive:
        for _ in range(2):  # the second has the optimizer's state from the beginning
            optimizer.zero_grad()
            model(batch.values, batch.lengths).logsumexp(-1).sum().backward()
            optimizer.step()
    assert found.bytes == pytest.approx(alive.peak, rel=0.1)


def _all_of_the_longest(task: Task, size: int) -> Any:
    samples = task.samples("train")
    yield samples.on_disk().__getitems__([int(samples.lengths.argmax())] * size)


def test_scores_that_are_made_and_dropped_count(composed, monkeypatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    config, task, _ = prepared(composed)
    backbone = BackboneConfig(dim=16, depth=1)
    vocab_size = task.spec.vocab_size
    model = Classifier(backbone, Scores, vocab_size=vocab_size, input_dim=1, num_classes=10)
    found = estimate(model, task, config, CPU)
    scores = 4 * found.length**2  # bytes of a sample's
    assert all(need.each > 2 * scores for need in found.needs)  # before and after the softmax


def test_what_is_computed_at_once_counts_and_no_more(composed, monkeypatch) -> None:
    """A batch is no larger than it is, and the test split may be larger and longer than others."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    large = ("trainer.micro_batch_size=1000", "task.num_test=60", "trainer.eval_batch_size=1000")
    config, task, model = prepared(composed, *large)
    for name in ("train", "val"):
        split = task.split(name)
        shortest = split.select([int(task.samples(name).lengths.argmin())])
        task._prepared.splits[name] = shortest  # type: ignore[union-attr]
    found = estimate(model, task, config, CPU)
    assert [need.samples for need in found.needs] == [16, 60]
    assert found.length == task.samples("test").lengths.max()


def test_an_estimate_waits_for_no_other_process(composed, monkeypatch) -> None:
    """The first process makes it alone, when torchrun or srun has started the others already."""
    config, task, model = prepared(composed, "model.norm=batch")
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "all_reduce", lambda *_: pytest.fail("it would wait for ever"))
    assert estimate(model, task, config, CPU).needs[0].bytes > 0


def test_an_estimate_leaves_no_trace(composed, monkeypatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    config, task, model = prepared(composed, "model.norm=batch")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    estimate(model, task, config, CPU)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())


@pytest.mark.training
def test_a_run_that_would_fill_the_memory_does_not_begin(composed, monkeypatch, tmp_path) -> None:
    small = "trainer.eval_batch_size=4"
    config, task, model = prepared(composed, small)
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    needed = estimate(model, task, config, CPU).largest.bytes
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0.7 * needed)
    with pytest.raises(
        RunError, match=r"(?s)would not suffice: .*try: trainer\.micro_batch_size=\d"
    ):
        run(composed(small))
    assert not list(tmp_path.glob("outputs/*/*/record.json"))
    (finding,) = [each for each in diagnose(config) if each.subject == "memory"]
    assert not finding.fine
    assert "trainer.micro_batch_size=" in finding.text
    run(composed(small, "trainer.micro_batch_size=2"))  # as the remedy has it


def test_not_even_one_sample_fits(composed, monkeypatch) -> None:
    """What is measured must not fill the memory either."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000.0)
    with pytest.raises(RunError, match="not even one sample"):
        run(composed())


@pytest.mark.parametrize(
    ("free", "processes", "said"),
    [
        (None, 1, "about 3.0 GiB of memory for 48 samples of length 2,000 at once (training)"),
        (4000 * MIB, 1, "(training), 3.9 GiB free"),
        (500 * MIB, 1, "try: training=4 evaluation=4"),
        (2000 * MIB, 1, "2.0 GiB free.\n  try: training=16"),
        (4000 * MIB, 2, "about 6.0 GiB"),
        (4000 * MIB, 2, "try: training=16"),
        (60 * MIB, 1, "not even one sample at once fits"),
    ],
)
def test_what_is_said_names_the_remedy(free: float | None, processes: int, said: str) -> None:
    needs = (Need("training", 48, 0, 64 * MIB), Need("evaluation", 10, 0, 64 * MIB))
    found = Estimate(needs, 2000, free, processes)
    assert said in str(found)
    assert found.fits == ("try" not in str(found))


def test_the_room_is_that_of_the_narrowest_limit(monkeypatch) -> None:
    """The machine's, a container's, and that of `ulimit -v`."""
    there = room.free_bytes(CPU.device)
    assert there is None or 0 < there < 2**50
    monkeypatch.setattr(room.resource, "getrlimit", lambda kind: (2**50, 2**50))
    assert next(room._of_the_process()) < 2**50
    monkeypatch.setattr(room, "_of_the_groups", lambda: iter([7.0]))
    assert room.free_bytes(CPU.device) == 7.0
