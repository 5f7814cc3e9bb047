"""A recorded step is the step: on a CPU with a tape in the place of the CUDA graph.

Like a graph the tape knows operations and addresses, and nothing of Python: what is not written
back to where the recording found it, or depends on a number on the host, comes out wrong here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from chela.model.recorded import RecordedStep
from chela.model.stepping import prefill
from chela.testing import VOCAB
from tests.model.baseline_variants import EVERY
from tests.model.test_stepping import make_model


class Tape(TorchDispatchMode):
    """Records operations, and does them later, to the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # recording changes nothing that was there before
        out = args[0] if func._schema.is_mutable else func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def wait_stream(self, other: object) -> None:
            """There is one."""

    @contextmanager
    def recording(graph: Tape, stream: object) -> Iterator[None]:
        with graph:
            yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", recording)


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_a_recorded_step_is_the_step(taped: None, name: str) -> None:
    model = make_model(name)
    ids, lengths = torch.randint(VOCAB, (3, 15)), torch.tensor([5, 1, 3])
    whole, rows = model(ids), torch.arange(3)
    _, state = prefill(model, ids[:, :5], lengths, room=9)
    step = RecordedStep(model, state, 3)
    for place in range(9):
        logits = step(ids[rows, lengths + place][:, None])
        expected = whole[rows, lengths + place]
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
