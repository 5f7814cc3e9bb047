"""Text: whether a review of IMDB is positive, from its characters or bytes; two classes.

The reviews are those of Maas et al. 2011, 25,000 to train and 25,000 to test (``reviews``).
Characters as in S4, by default, or bytes as in the original arena (``symbols``). The arena
has no validation split; here a tenth of train is held out, unless ``protocol`` is ``lra``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import field
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt
from datasets import Dataset
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from tasks import bits
from tasks.base import Protocol, Task, TaskSpec
from tasks.characters import as_many_as
from tasks.sources.archives import Source
from tasks.sources.locate import check_name, locate
from tasks.spec import Seed
from tasks.storage.meta import Origin
from tasks.storage.rows import Rows, offsets_of
from tasks.text.reviews import (
    CLASSES,
    HUB,
    PLACES,
    WHAT,
    Review,
    check_official,
    read_files,
    read_hub,
)
from tasks.text.symbols import DTYPE, Bytes, Characters, alphabet_of

BLOCK = 1000  # reviews encoded at once
HELD_OUT = 0.1  # of each class


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class TextConfig:
    """The defaults are S4's task, with a validation split; so is ``configs/task/text.yaml``."""

    name: Literal["text"] = "text"
    # auto: the official files if they are found, else the hub
    source: Literal["auto", "official", "hub"] = "auto"
    # other files in the official form: a name for them
    stand_in: str | None = field(default=None, metadata={"neutral": None})
    level: Literal["characters", "bytes"] = "characters"  # S4's, or Tay's
    # null: 4,096 characters with the end symbol (S4), 4,000 bytes (Tay); longer texts are cut
    max_length: Annotated[int, Gt(1)] | None = None
    min_frequency: Annotated[int, Ge(1)] = 15  # of a known character in train (S4)
    # heldout: a tenth of train selects; lra: the test split itself does, as published
    protocol: Literal["heldout", "lra"] = "heldout"
    data_seed: Seed = 0  # of the tenth; fixed: runs differ by seed

    def __post_init__(self) -> None:
        check_name(self.stand_in)
        if self.stand_in is not None and self.source == "hub":
            raise ValueError("a stand_in is read from files: leave out source=hub")

    @property
    def length(self) -> int:
        """``max_length``, or what null means."""
        return self.max_length or {"characters": 4096, "bytes": 4000}[self.level]


class Text(Task):
    """The Text task."""

    version = 1
    dtype = DTYPE
    Config = TextConfig
    config: TextConfig

    @property
    def spec(self) -> TaskSpec:
        """Two classes; the vocabulary is known when the data are open, after ``setup``."""
        return TaskSpec(self.name, 2, self.config.length, self._symbols.size, input_dim=1)

    @property
    def usual_facts(self) -> dict[str, Any]:
        """As many characters as the official reviews have."""
        return {"alphabet": as_many_as(134)}

    @property
    def protocol(self) -> Protocol:
        """As configured."""
        return self.config.protocol

    def origin(self) -> Origin:
        """The official reviews, from wherever they are read, or a stand-in; and how they are cut.

        Prepared data are found without their source: the official content is known by its
        checksum, a stand-in by its name.
        """
        config = self.config
        parameters: dict[str, Any] = {
            "level": config.level,
            "max_length": config.length,
            "protocol": config.protocol,
        }
        if config.level == "characters":
            parameters["min_frequency"] = config.min_frequency
        if config.protocol == "heldout":
            parameters["data_seed"] = config.data_seed
        return self.given(parameters)

    def rows(self) -> Iterator[tuple[str, Rows]]:
        """The reviews, sorted by their texts; all of them pass through memory, 65 MB."""
        reviews = self._read()
        train = reviews["train"]
        if self.config.level == "characters":
            # Of the whole official train in both protocols, as S4: the symbols are then the same,
            # and neither labels nor the test split have a part in them.
            texts = [review.text for review in train]
            known = alphabet_of(texts, self.config.length, self.config.min_frequency)
            self.found["alphabet"] = known  # in the order of its numbers
        if self.protocol == "heldout":
            held = held_out(train, self.config.data_seed)
            yield from self._encoded("train", [train[row] for row in np.flatnonzero(~held)])
            yield from self._encoded("val", [train[row] for row in np.flatnonzero(held)])
        else:
            yield from self._encoded("train", train)
        yield from self._encoded("test", reviews["test"])

    def expected_rows(self) -> int | None:
        """The official number; that of a stand-in shows when it is read."""
        return 50_000 if self.config.stand_in is None else None

    def sample(self, split: str, index: int) -> str:
        """What the model is given of one review, as text."""
        return self._symbols.decode(self.split(split)[index]["values"])

    def own_rows(self, examples: Sequence[str]) -> Rows:
        """Texts."""
        values, lengths = self._symbols.encode([text.encode() for text in examples])
        return Rows(values, offsets_of(lengths), np.zeros(len(lengths), dtype=np.int64))

    @property
    def _symbols(self) -> Characters | Bytes:
        if self.config.level == "bytes":
            return Bytes(self.config.length)
        known = self.found or self.known_facts  # this object may be preparing the data
        return Characters(known["alphabet"], self.config.length)

    @cached_property
    def _source(self) -> Source | dict[str, Dataset]:
        """The official files, or the splits of the hub.

        Raises:
            DataError: there are none.
        """
        hub = HUB if self.config.stand_in is None else None
        return locate(self.name, self.data_dir, PLACES, hub, self.config.source, WHAT)

    def _read(self) -> dict[str, list[Review]]:
        source = self._source
        if isinstance(source, Source):
            reviews, place = read_files(source), str(source.path)
        else:
            reviews, place = read_hub(source), f"{HUB} on the hub"
        if self.config.stand_in is None:
            for split, own in reviews.items():
                check_official(own, split, place)
        return reviews

    def _encoded(self, split: str, reviews: list[Review]) -> Iterator[tuple[str, Rows]]:
        for start in range(0, len(reviews), BLOCK):
            block = reviews[start : start + BLOCK]
            values, lengths = self._symbols.encode([review.text for review in block])
            labels = np.array([review.label for review in block], dtype=np.int64)
            yield split, Rows(values, offsets_of(lengths), labels)


def held_out(reviews: list[Review], seed: int) -> NDArray[np.bool_]:
    """Which of the sorted reviews (n,) are the validation split: a tenth of each class.

    Equal texts stand on the same side, so that none is learned and asked; where the tenth would
    part them it is larger by those.
    """
    is_new = [row == 0 or text != reviews[row - 1].text for row, (text, _) in enumerate(reviews)]
    raw = bits.stream(bits.TEXT_HELD_OUT, seed, 0).random_raw(sum(is_new))
    number = raw[np.cumsum(is_new) - 1]  # (n,), one for each text
    labels = np.array([review.label for review in reviews])
    held = np.zeros(len(reviews), dtype=np.bool_)
    for label in range(len(CLASSES)):
        own = np.sort(number[labels == label])
        held |= (labels == label) & (number <= own[math.ceil(HELD_OUT * len(own)) - 1])
    return held
