"""A whole model a token at a time: ``chela.mixers.stepping`` for all of its blocks."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from chela.kernels.masking import last_token
from chela.mixers.stepping import State, causal_only
from chela.model.block import Block
from chela.model.models import Model, TokenModel


def steppable(model: Model) -> TokenModel:
    """The model, if it can go on a token at a time.

    Raises:
        ValueError: it gives one answer for a whole sequence, sees tokens that are still to come, is
            being trained, or has a mixer without ``prefill`` and ``step``.
    """
    if not isinstance(model, TokenModel):
        raise ValueError(
            "the model is a classifier: it gives one answer for a whole sequence and predicts no "
            "next token; take a run of a task whose objective is tokens"
        )
    if model.training:
        raise ValueError("the model is in training mode, with dropout; call model.eval() first")
    for module in model.backbone.blocks.modules():
        if hasattr(module, "causal"):
            causal_only(module)
    for block in model.backbone.blocks:
        if not hasattr(block.mixer, "step"):
            name = type(block.mixer).__name__
            raise ValueError(
                f"{name} has no form that goes on a token at a time; give it the methods prefill "
                "and step of chela.mixers.stepping"
            )
    return model


@torch.no_grad()
def prefill(
    model: TokenModel, values: Tensor, lengths: Tensor | None = None, room: int = 0
) -> tuple[Tensor, State]:
    """Read prompts, all tokens at once.

    Args:
        model: in eval mode, causal.
        values: (B, L) or (B, L, C); padding may hold anything.
        lengths: (B,) true lengths from 1 to L, None when nothing is padded.
        room: how many steps will follow, as far as that is known.

    Returns:
        The logits (B, classes) of the last token of each, and the state for ``step``.

    Raises:
        ValueError: see ``steppable`` and ``Backbone.forward``.
    """
    steppable(model)
    model.backbone.check(values, lengths)
    x: Tensor = model.backbone.encoder(values, lengths)  # (B, L, D)
    states = []
    for block in _blocks(model):
        x, state = block.prefill(x, lengths, room)
        states.append(state)
    return _answer(model, last_token(x, lengths)[:, None]), tuple(states)


@torch.no_grad()
def step(model: TokenModel, values: Tensor, state: State) -> tuple[Tensor, State]:
    """Read one more token of each sequence.

    Args:
        model: that ``prefill`` was called with.
        values: (B, 1), or (B, 1, C).
        state: what ``prefill`` or the step before returned; it may be written into.

    Returns:
        The logits (B, classes) of this token, and the state behind it.
    """
    x: Tensor = model.backbone.encoder(values)  # (B, 1, D)
    states = []
    for block, before in zip(_blocks(model), state, strict=True):
        x, after = block.step(x, before)
        states.append(after)
    return _answer(model, x), tuple(states)


def _blocks(model: TokenModel) -> list[Block]:
    return [cast("Block", each) for each in model.backbone.blocks]


def _answer(model: TokenModel, x: Tensor) -> Tensor:
    """(B, 1, D) to logits (B, classes)."""
    norm = model.backbone.final_norm
    logits: Tensor = model.head(x if norm is None else norm(x))
    return logits[:, 0]
