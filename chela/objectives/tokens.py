"""A token at each position where one is asked."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from chela.layers.sequence import own_positions
from chela.model import TokenModel
from chela.objectives.base import ACCURACY, LOSS, Answers, Means, Metric, Objective
from tasks.storage.rows import NOTHING

MANY = 1 << 14  # tokens of a vocabulary; bytes and MQAR's symbols are fewer
LARGEST = 700.0  # nats, whose exponential is still a float


def perplexity(means: Means) -> float:
    """Among how many equally likely tokens the model seems to guess."""
    return math.exp(min(means.loss, LARGEST))


class Tokens(Objective):
    """Targets (B, L), ``NOTHING`` where nothing is asked; logits (B, L, vocabulary)."""

    model = TokenModel
    per_sample = False
    metrics = (
        LOSS,
        ACCURACY,
        Metric("perplexity", "tokens", "min", perplexity, lambda m: perplexity(m) * m.loss_error),
    )

    def ask(
        self, model: Any, values: Tensor, lengths: Tensor | None, targets: Tensor
    ) -> tuple[Answers, Tensor]:
        """The head reads no more places (B, answers) of a sample than can be asked.

        Scores among ``MANY`` tokens or more are left to whoever reads them, some at a time. Of
        processes that hold a sequence together each is asked at its own positions.
        """
        targets = own_positions(targets, fill=NOTHING)
        answer = model if self.num_classes < MANY else model.unread
        if self.answers is None:
            return answer(values, lengths), targets
        asked_first = (targets == NOTHING).byte().argsort(dim=1, stable=True)
        places = asked_first[:, : self.answers]  # a fixed number: a GPU need not say how many
        return answer(values, lengths, places), targets.gather(1, places)


def bits(name: str) -> Metric:
    """The loss in bits: what an arithmetic coder would need for each."""
    two = math.log(2)
    return Metric(name, "bits", "min", lambda m: m.loss / two, lambda m: m.loss_error / two)


class Bytes(Tokens):
    """Tokens that are bytes."""

    metrics = (bits("bits_per_byte"), LOSS, ACCURACY)


class Characters(Tokens):
    """Tokens that are characters."""

    metrics = (bits("bits_per_character"), LOSS, ACCURACY)
