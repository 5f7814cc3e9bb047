"""What is asked at a target, how an answer is judged, and what is made of many of them.

Everything is a sum over targets, so that the mean is exact however they were cut into batches,
parts of batches and processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from chela.kernels.token_loss import token_loss
from chela.layers.basic import compute_dtype
from chela.layers.sequence import part
from chela.model import Model, Unread
from tasks.storage.rows import NOTHING

Direction = Literal["max", "min"]
Answers = Tensor | Unread
SUMS = ("loss", "hits", "targets", "squared loss")  # in this order


@dataclass(frozen=True)
class Means:
    """What the sums over ``n`` targets come to, at each of them."""

    loss: float
    hits: float
    n: float
    squared_loss: float = 0.0

    @classmethod
    def of(cls, sums: Sequence[float]) -> Means:
        """Of ``SUMS``, or of the first three; of no target all are 0."""
        loss, hits, n, *squares = sums
        each = max(n, 1)
        return cls(loss / each, hits / each, n, sum(squares) / each)

    @property
    def loss_error(self) -> float:
        """The standard error of the mean loss, targets taken for independent."""
        variance = max(0.0, self.squared_loss - self.loss**2)
        return math.sqrt(variance / max(self.n, 1))

    @property
    def hits_error(self) -> float:
        """The binomial standard error of the fraction of hits."""
        return math.sqrt(max(0.0, self.hits * (1 - self.hits)) / max(self.n, 1))


@dataclass(frozen=True)
class Metric:
    """A number that the sums over targets give."""

    name: str
    unit: str  # "fraction": shown in %
    direction: Direction  # which values are better
    value: Callable[[Means], float]
    error: Callable[[Means], float]  # its standard error

    def better(self, new: float, old: float | None) -> bool:
        """Whether ``new`` is; among equals the first stays, and NaN is never."""
        if old is None:
            return not math.isnan(new)
        return new > old if self.direction == "max" else new < old

    @property
    def best(self) -> str:
        """``"highest accuracy"``, ``"lowest loss"``."""
        return f"{'highest' if self.direction == 'max' else 'lowest'} {self.name}"


ACCURACY = Metric("accuracy", "fraction", "max", lambda m: m.hits, lambda m: m.hits_error)
LOSS = Metric("loss", "nats", "min", lambda m: m.loss, lambda m: m.loss_error)


class Objective:
    """Cross-entropy among ``num_classes`` at each target.

    Args:
        num_classes: values that a target can have.
        metric: the name of the one that selects.
        answers: places of a sample that are asked, at most; None: all of them may be.

    Raises:
        ValueError: there is no such metric.
    """

    model: ClassVar[type[Model]]  # with the head that it needs
    metrics: ClassVar[tuple[Metric, ...]] = (LOSS, ACCURACY)
    per_sample: ClassVar[bool]  # one target in each sample: shares of a batch count alike

    def __init__(
        self, num_classes: int, metric: str = "accuracy", answers: int | None = None
    ) -> None:
        known = {each.name: each for each in self.metrics}
        if metric not in known:
            raise ValueError(f"{metric} is not one of the metrics {', '.join(known)}")
        self.primary = known[metric]
        self.num_classes = num_classes
        self.guessing = math.log(num_classes)  # the loss of who knows nothing
        self.answers = answers

    def ask(
        self, model: Any, values: Tensor, lengths: Tensor | None, targets: Tensor
    ) -> tuple[Answers, Tensor]:
        """What ``model`` answers to a batch: logits (..., classes) and their targets (...).

        Processes that hold a sequence together have one answer: the first of them is asked for it.
        """
        answers = model(values, lengths)
        return answers, targets if part() == 0 else torch.full_like(targets, NOTHING)

    def judge(
        self, logits: Answers, targets: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of each target, 1 where it is hit, and 1 where one is asked.

        Args:
            logits: (..., classes), or what they would be made of.
            targets: (...), ``NOTHING`` where nothing is asked: loss and hit are 0 there.
            smoothing: share of a target that all classes have alike (Szegedy et al. 2016,
                arXiv 1512.00567, section 7); of logits alone.

        Returns:
            Three float32 tensors (n,), n the number of places in ``targets``.
        """
        targets = targets.flatten()
        if isinstance(logits, Unread):
            x = logits.features.flatten(0, -2)
            last = logits.weight, logits.bias
            losses, hits = token_loss(x, *last, targets, NOTHING, dtype=compute_dtype(x))
            return losses, hits, self.asked(targets)
        logits = logits.float().flatten(0, -2)
        losses = F.cross_entropy(
            logits,
            targets,
            reduction="none",
            ignore_index=NOTHING,
            label_smoothing=smoothing,
        )
        hits = (logits.argmax(-1) == targets).float()
        return losses, hits, self.asked(targets)

    def asked(self, targets: Tensor) -> Tensor:
        """1 where something is asked, else 0; float32."""
        return (targets != NOTHING).float()

    def loss(self, logits: Answers, targets: Tensor) -> Tensor:
        """The mean loss of the targets asked."""
        losses, _, asked = self.judge(logits, targets)
        return losses.sum() / asked.sum().clamp(min=1)

    def evaluate(self, logits: Answers, targets: Tensor) -> Tensor:
        """``SUMS`` over each sample's targets (B, 4), float64: the order of adding hides."""
        judged = self.judge(logits, targets)
        losses, hits, asked = (each.double().view(len(targets), -1) for each in judged)
        return torch.stack([losses, hits, asked, losses.square()], dim=-1).sum(1)

    def values(self, means: Means) -> dict[str, float]:
        """The value of each metric, by name."""
        return {each.name: each.value(means) for each in self.metrics}
