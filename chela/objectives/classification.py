"""One class of a sample."""

from __future__ import annotations

from chela.model import Classifier
from chela.objectives.base import Objective


class Classification(Objective):
    """Targets (B,), logits (B, classes)."""

    model = Classifier
    per_sample = True
