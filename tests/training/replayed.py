"""Graphs where there are none: what a replay would compute is computed anew."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from chela.training import graphs
from chela.training.engine import resolve
from tasks.base import Batch


@dataclass
class Replay:
    """In place of a CUDA graph."""

    step: Callable[[Batch], Tensor]
    batch: Batch
    output: Tensor

    def replay(self) -> None:
        self.output.copy_(self.step(self.batch))


class Replayed(graphs.StepGraphs):
    """Rehearses and records as the real one does; recording computes nothing."""

    def __init__(self, step, rehearsal=nullcontext, beside=None) -> None:
        self._step, self._rehearsal = step, rehearsal
        self._recorded = {}

    def _beside(self, batch: Batch) -> None:
        self._output = self._step(batch).detach()

    def _record(self, batch: Batch) -> graphs._Recorded:
        output = self._output.new_zeros(self._output.shape)
        return graphs._Recorded(Replay(self._step, batch, output), batch, output)  # type: ignore[arg-type]


def replay_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs on a CPU step as with graphs on a GPU, uncompiled, to the same bits as without."""
    graph = lambda config: replace(resolve(config), step="graph")  # noqa: E731
    monkeypatch.setattr("chela.training.run.resolve", graph)
    monkeypatch.setattr("chela.training.run.build.compile_blocks", lambda *_, **__: None)
    # padding changes rounding
    monkeypatch.setattr("chela.training.data.widths_up_to", lambda longest: ())
    for place in ("module", "evaluation"):
        monkeypatch.setattr(f"chela.training.{place}.StepGraphs", Replayed)
    monkeypatch.setattr("chela.training.module.follow_the_device", lambda *_: None)


@dataclass(frozen=True)
class Recording:
    """What was recorded at once of training."""

    widths: list[int]
    changed: list[str]  # weights, buffers and states that are not what they were


def watch(monkeypatch: pytest.MonkeyPatch, kind: type[graphs.StepGraphs]) -> list[Recording]:
    """The recordings of training steps from now on."""
    found: list[Recording] = []
    original = kind.record

    def record(self, batches, *between) -> None:
        batches = list(batches)
        if self._rehearsal is nullcontext:  # of an evaluation
            original(self, batches, *between)
            return
        before = state_of(*self._rehearsal.args)
        original(self, batches, *between)
        changed = [
            name
            for name, x in state_of(*self._rehearsal.args).items()
            if not torch.equal(x, before.get(name, torch.zeros_like(x)))
        ]
        found.append(Recording([each.values.shape[-1] for each in batches], changed))

    monkeypatch.setattr(kind, "record", record)
    return found


def state_of(module, optimizer) -> dict[str, Tensor]:
    """All that a step can change."""
    found = dict([*module.named_parameters(), *module.named_buffers()])
    for number, state in optimizer.state_dict()["state"].items():
        found |= {f"{number} {name}": x for name, x in state.items()}
    found["random"] = torch.get_rng_state()
    if torch.cuda.is_available():
        found["random on the GPU"] = torch.cuda.get_rng_state()
    return {name: x.detach().clone() for name, x in found.items()}
