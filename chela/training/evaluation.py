"""One pass over a split that is not trained on: exact means over its targets."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from chela.objectives.base import SUMS, Means
from chela.training.distributed import total
from chela.training.graphs import StepGraphs
from tasks.base import Batch


class Evaluation(nn.Module):
    """Sums over all targets of the pass so far, and over those of each kind of sample.

    They are on the model's device, and no part of a checkpoint.

    Args:
        judge: from a batch to ``SUMS`` of each of its samples (B, 4).
        graph: make that one CUDA graph for each shape of batch.
    """

    sums: Tensor  # (4,) ``SUMS``
    kind_of: Tensor | None  # (n,) of the split's samples, where they are told apart
    by_kind: Tensor  # (kinds, 4) ``SUMS``

    def __init__(self, judge: Callable[[Batch], Tensor], graph: bool) -> None:
        super().__init__()
        self._judge, self._graph = judge, graph
        self._graphs: StepGraphs | None = None
        self._size = 0
        sums = torch.zeros(len(SUMS), dtype=torch.float64)
        self.register_buffer("sums", sums, persistent=False)
        self.register_buffer("by_kind", sums.new_zeros(0, len(SUMS)), persistent=False)
        self.register_buffer("kind_of", None, persistent=False)

    def tell_apart(self, kind_of: Tensor, kinds: int) -> None:
        """Sum over each kind, too: sample i is of kind ``kind_of[i]``."""
        self.kind_of = kind_of.to(self.sums.device)
        self.by_kind = self.sums.new_zeros(kinds, len(SUMS))

    def add(self, batch: Batch, batch_index: int, beside: StepGraphs | None) -> None:
        """Add a batch.

        Args:
            batch: of the split.
            batch_index: its number in the pass.
            beside: graphs, to share the memory of.
        """
        if batch_index == 0:
            self._size = len(batch.targets)
        last = len(batch.targets) < self._size  # not worth compiling for
        if self._graph and not last:
            if self._graphs is None:
                self._graphs = StepGraphs(self._judge, beside=beside)
            sums = self._graphs(batch)
        else:
            with torch.compiler.set_stance("force_eager") if last else nullcontext():
                sums = self._judge(batch)
        self.sums += sums.sum(0)
        if self.kind_of is not None:
            self.by_kind.index_add_(0, self.kind_of[batch.index], sums)

    def result(self) -> tuple[Means, list[Means]]:
        """What the pass came to over all processes, in all and of each kind; a new one begins."""
        of_kinds = []
        if self.kind_of is not None:
            of_kinds = [Means.of(sums) for sums in total(self.by_kind).tolist()]
            self.by_kind.zero_()
        return means_of(self.sums), of_kinds

    def forget_graphs(self) -> None:
        """Give back the memory of what was recorded; it is recorded anew when it is needed."""
        self._graphs = None


def means_of(sums: Tensor) -> Means:
    """What sums came to, over all processes; they begin anew at zero."""
    means = Means.of(total(sums).tolist())
    sums.zero_()
    return means
