"""What a task asks of a model, by the name that its ``TaskSpec`` has for it."""

from __future__ import annotations

from chela.objectives.base import Metric, Objective
from chela.objectives.classification import Classification
from chela.objectives.tokens import Bytes, Characters, Tokens
from tasks.base import TaskSpec

OBJECTIVES: dict[str, type[Objective]] = {
    "classification": Classification,
    "tokens": Tokens,
    "bytes": Bytes,
    "characters": Characters,
}
METRICS: dict[str, Metric] = {
    each.name: each for kind in OBJECTIVES.values() for each in kind.metrics
}


def objective_of(spec: TaskSpec, metric: str = "accuracy") -> Objective:
    """The objective of a task.

    Args:
        spec: of the task; its ``objective`` is one of ``OBJECTIVES``.
        metric: that selects, the task's ``metric``.

    Raises:
        ValueError: the objective has no such metric.
    """
    return OBJECTIVES[spec.objective](spec.num_classes, metric, spec.answers)
