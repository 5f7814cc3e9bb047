"""A step as one CUDA graph: its hundreds of launches are recorded once and replayed as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.base import Batch

WARM_UP = 2  # steps of each shape before it is recorded: compilers and libraries settle in them
Rehearsal = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    batch: Batch  # what the graph reads
    output: Tensor  # what it writes


class StepGraphs:
    """A step that is recorded for each shape of batch, and replayed from then on.

    Recording computes nothing, and what it rehearses is put back: each step is a replay. The graphs
    share their memory, since one is replayed at a time. They know the weights by their addresses:
    once a model has been moved they are of no use. Several processes record and replay together
    what they add up: all meet the same shapes in the same order.

    Args:
        step: from a batch to a tensor. It waits for nothing, and keeps what must last in tensors
            that it changes in place.
        rehearsal: what steps change inside of this context is at its end what it was; by default
            they change nothing.
        beside: other graphs, to share the memory of.
    """

    def __init__(
        self,
        step: Callable[[Batch], Tensor],
        rehearsal: Rehearsal = nullcontext,
        beside: StepGraphs | None = None,
    ) -> None:
        self._step = step
        self._rehearsal = rehearsal
        self._recorded: dict[torch.Size, _Recorded] = {}
        self._pool: Any = torch.cuda.graph_pool_handle() if beside is None else beside._pool
        self._stream = torch.cuda.Stream()  # a graph cannot be recorded on the default one

    def record(self, batches: Iterable[Batch], between: Callable[[], None] = lambda: None) -> None:
        """Record the step of each shape that ``batches`` have, the largest first.

        The others then find room in the memory that the largest one took. All are rehearsed before
        the first one is recorded, as recording gives back the memory that rehearsals share. What is
        rehearsed are the very tensors that are recorded: for those that were views of others, a
        compiler would have to begin anew while a graph is recorded, which it cannot.

        Args:
            batches: one of each shape.
            between: called between two of these, which compilers may make long; it may raise.
        """
        new = {
            batch.values.shape: Batch(*(each.clone() for each in batch))
            for batch in batches
            if batch.values.shape not in self._recorded
        }
        shapes = sorted(new, key=torch.Size.numel, reverse=True)
        with self._rehearsal():
            for shape in shapes * WARM_UP:
                between()
                self._beside(new[shape])
        for shape in shapes:
            self._recorded[shape] = self._record(new[shape])
            between()

    def __call__(self, batch: Batch) -> Tensor:
        """The step of ``batch``; the output is overwritten by the next step."""
        shape = batch.values.shape
        if shape not in self._recorded:
            self.record([batch])
        recorded = self._recorded[shape]
        for mine, new in zip(recorded.batch, batch, strict=True):
            mine.copy_(new)
        recorded.graph.replay()
        return recorded.output

    def _beside(self, batch: Batch) -> None:
        """The step, on the stream where it will be recorded."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._step(batch)
        current.wait_stream(self._stream)

    def _record(self, batch: Batch) -> _Recorded:
        graph = torch.cuda.CUDAGraph()
        # Of several processes, NCCL has a thread that asks for its events at any time.
        mode = "thread_local"
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode=mode):
            output = self._step(batch)
        return _Recorded(graph, batch, output)
