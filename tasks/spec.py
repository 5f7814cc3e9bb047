"""What is said of a task beside its data: what a model has to know of it, and its protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

if TYPE_CHECKING:
    from tasks.loader import Batch

PositiveInt = Annotated[int, Gt(0)]
Seed = Annotated[int, Ge(0), Lt(2**63)]
LRA = ("listops", "text", "retrieval", "image", "pathfinder", "pathx")  # the arena's six
Protocol = Literal["heldout", "lra"]
# One class of a sample, or one of its tokens after another; these may be bytes or characters.
Objective = Literal["classification", "tokens", "bytes", "characters"]
# Where the best value selects; printed beside every number.
PROTOCOLS: dict[Protocol, str] = {
    "heldout": "on the whole validation split, which no test sample is in",
    "lra": "on the test split itself, as the published numbers of this task",
}


@dataclass(frozen=True)
class TaskSpec:
    """What a model has to know of a task."""

    name: str
    num_classes: int  # values that a target can have
    max_length: int  # no sequence is longer, end symbol included
    vocab_size: int | None  # None: the input is continuous
    input_dim: int  # channels of a continuous input; 1 for symbols
    documents: int = 1  # sequences of a sample; 2: their features are compared
    objective: Objective = "classification"  # what is asked, see chela.objectives
    answers: int | None = None  # tokens: places of a sample that are asked, at most; None: all
    # draws for each sample of a batch a form of it that has the same class; None: there is no other
    augment: Callable[[Batch], Batch] | None = None


class Sized:
    """What the configurations of tasks share whose data are generated: the rows of each split."""

    num_train: Any
    num_val: Any
    num_test: Any

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each split, when generated."""
        return {"train": self.num_train, "val": self.num_val, "test": self.num_test}

    @property
    def total(self) -> int:
        """Rows of all splits."""
        return sum(self.sizes.values())
