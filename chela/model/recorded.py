"""A step of a model as one CUDA graph: hundreds of launches, recorded once and replayed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from chela.mixers.stepping import State
from chela.model.models import TokenModel
from chela.model.stepping import step

WARM_UP = 2  # steps before it is recorded: compilers and libraries settle in them


class RecordedStep:
    """``step`` for one batch of sequences, whose state it keeps.

    Args:
        model: on a GPU.
        state: of ``prefill``, with place for all steps that follow (``steps_left``); it is this
            object's from now on.
        batch: how many sequences.
    """

    def __init__(self, model: TokenModel, state: State, batch: int) -> None:
        device = next(model.parameters()).device
        self._tokens = torch.zeros(batch, 1, dtype=torch.long, device=device)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step(model, self._tokens, tree_map_only(Tensor, Tensor.clone, state))
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(self._graph, stream=stream):
            self._logits, after = step(model, self._tokens, state)
            for mine, new in zip(tree_leaves(state), tree_leaves(after), strict=True):
                if isinstance(mine, Tensor) and mine.data_ptr() != new.data_ptr():
                    mine.copy_(new)
        self._state = state  # the graph knows it by its addresses

    def __call__(self, tokens: Tensor) -> Tensor:
        """The logits (B, classes) of the next tokens (B, 1); the next call overwrites them."""
        self._tokens.copy_(tokens)
        self._graph.replay()
        return self._logits
