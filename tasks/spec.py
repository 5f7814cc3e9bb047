"""What is said of a task beside its data: what a model has to know of it, and its protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LRA = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")  # the arena's six
Protocol = Literal["heldout", "lra"]
# Printed beside every number.
PROTOCOLS: dict[Protocol, str] = {
    "heldout": "highest accuracy on the whole validation split, which no test sample is in",
    "lra": "highest accuracy on the test split itself, as the published numbers of this task",
}


@dataclass(frozen=True)
class TaskSpec:
    """What a model has to know of a task."""

    name: str
    num_classes: int
    max_length: int  # no sequence is longer, end symbol included
    vocab_size: int | None  # None: the input is continuous
    input_dim: int  # channels of a continuous input; 1 for symbols
    documents: int = 1  # sequences of a sample; 2: their features are compared
