"""The induction head: what stood behind a sign once is to be said when the sign comes again.

Random symbols; the sign at one place of all but the last two, and again at the end, where the
symbol that followed it is asked for (Fu et al. 2023; sizes as in Gu and Dao 2023: length 256, 16
symbols).
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from pydantic.dataclasses import dataclass

from tasks.recall.drawn import DrawnAlike, DrawnConfig, Vocabulary, rows_of
from tasks.storage.rows import Rows

SIGN = 0  # the symbol that comes twice; all others are drawn


@dataclass(frozen=True, kw_only=True, config={"extra": "forbid", "allow_inf_nan": False})
class InductionConfig(DrawnConfig):
    """``configs/task/induction.yaml`` says the same."""

    name: Literal["induction"] = "induction"
    length: Annotated[int, Ge(3)] = 256  # of every sample
    vocabulary: Vocabulary = 16  # the sign among them


class Induction(DrawnAlike):
    """The task of the induction head."""

    version = 1
    Config = InductionConfig
    config: InductionConfig

    @property
    def answers(self) -> int:
        """The last place."""
        return 1

    def draw(self, count: int, block: int) -> Rows:
        """Symbols, with the sign at a place drawn evenly and at the end."""
        config = self.config
        random = np.random.default_rng((config.data_seed, block))
        values = random.integers(1, config.vocabulary, (count, config.length))
        places = random.integers(0, config.length - 2, (count, 1))
        np.put_along_axis(values, places, SIGN, axis=1)
        values[:, -1] = SIGN
        answers = np.take_along_axis(values, places + 1, axis=1)
        return rows_of(values, np.full((count, 1), config.length - 1), answers)
