"""A token at each position where one is asked."""

from __future__ import annotations

import math

from chela.model import TokenModel
from chela.objectives.base import ACCURACY, LOSS, Means, Metric, Objective

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
