"""Retrieval: whether one of two documents cites the other, from their characters; two classes.

The pairs are those of the ACL Anthology Network (``aan``), which is what the task's name promises;
or, under the name ``retrieval-rfc``, a stand-in of the same form from the IETF's RFCs (``rfc``).
Behind the pairs of texts everything is shared: 3,999 characters and an end symbol of each
(``pairs``), one document after the other in a row, (B, 2, L) in a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from functools import cached_property
from itertools import groupby, islice
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, MultipleOf
from pydantic.dataclasses import dataclass

from tasks.base import Task, TaskSpec
from tasks.characters import Alphabet, as_many_as
from tasks.loader import Encoding
from tasks.retrieval import aan, rfc
from tasks.retrieval.baselines import judge, tfidf_cosines
from tasks.retrieval.pairs import Pair, encode, readable_pair, separate
from tasks.retrieval.rfc_pairs import Pairs, in_degrees, matched_pairs, split_pairs
from tasks.sources.archives import Source, find_or_say
from tasks.sources.locate import check_name
from tasks.spec import Seed, Sized
from tasks.storage.meta import Origin
from tasks.storage.rows import Rows

NAMES = {"aan": "retrieval", "rfc": "retrieval-rfc"}
BLOCK = 256  # pairs encoded at once: two megabytes of characters

# As many negative as positive pairs.
Size = Annotated[int, Gt(0), MultipleOf(2)]


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class RetrievalConfig(Sized):
    """The defaults are S4's task; ``configs/task/retrieval.yaml`` says the same."""

    name: Literal["retrieval", "retrieval-rfc"] = "retrieval"  # follows from data
    data: Literal["aan", "rfc"] = "aan"  # the official pairs | a stand-in from RFCs
    # of aan: other pairs in the official form; a name for them
    stand_in: str | None = field(default=None, metadata={"neutral": None})
    max_length: Annotated[int, Gt(1)] = 4000  # of a document, with the end symbol (S4)

    # Of rfc only:
    num_train: Size = 120_000  # of 158,730 that 9,692 RFCs give; 8 : 1 : 1 as the official ones
    num_val: Size = 15_000
    num_test: Size = 15_000
    data_seed: Seed = 0  # fixed: runs differ by seed, not by their data
    max_in_degree: Annotated[int, Gt(1)] = 200  # exclusive: what more documents cite tells little
    year_window: Annotated[int, Ge(0)] = 2  # years between a cited document and its negative

    def __post_init__(self) -> None:
        if self.data in NAMES and self.name != NAMES[self.data]:
            raise ValueError(f"name={self.name} is not that of data={self.data}; leave it out")
        check_name(self.stand_in)
        if self.data == "rfc" and self.stand_in is not None:
            raise ValueError("data=rfc is a stand-in by itself: leave out stand_in")


class Retrieval(Task):
    """The Retrieval task."""

    version = 1
    Config = RetrievalConfig
    config: RetrievalConfig

    @property
    def spec(self) -> TaskSpec:
        """Two documents, two classes; the vocabulary is known when the data are open."""
        size = self._alphabet.size
        return TaskSpec(self.name, 2, self.config.max_length, size, input_dim=1, documents=2)

    @property
    def usual_facts(self) -> dict[str, Any]:
        """As many characters as the official papers, or the RFCs, have."""
        return {"alphabet": as_many_as({"aan": 98, "rfc": 110}[self.config.data])}

    @property
    def encoding(self) -> Encoding:
        """Rows of two documents as (B, 2, L)."""
        return Encoding(documents=2, separate=separate)

    def origin(self) -> Origin:
        """The official pairs, a stand-in in their form, or the RFCs; and how they are cut.

        Prepared data are found without their source. Which RFCs there were is in ``meta.facts``.
        """
        config = self.config
        parameters: dict[str, Any] = {"max_length": config.max_length}
        if config.data == "aan":
            return self.given(parameters)
        for key in ("data_seed", "max_in_degree", "year_window"):
            parameters[key] = getattr(config, key)
        parameters["rows"] = config.sizes
        return Origin(self.name, self.version, "rfc", parameters, stand_in=True)

    def rows(self) -> Iterator[tuple[str, Rows]]:
        """The pairs, train first: its characters are the vocabulary."""
        alphabet = Alphabet()
        pairs = self._rfc()
        if self.config.data == "aan":
            is_official = self.config.stand_in is None
            pairs = aan.read_pairs(self._source, self.config.max_length, is_official)
        for split, group in groupby(pairs, key=lambda each: each[0]):
            its = (pair for _, pair in group)
            while block := [*islice(its, BLOCK)]:
                yield split, encode(block, alphabet, self.config.max_length, split == "train")
        self.found["alphabet"] = alphabet.characters

    def expected_rows(self) -> int | None:
        """The official number, or the sizes asked for; that of a stand-in shows when it is read."""
        if self.config.data == "rfc":
            return self.config.total
        return sum(aan.ROWS.values()) if self.config.stand_in is None else None

    def sample(self, split: str, index: int) -> str:
        """What the model is given of one pair: two texts with a line between them."""
        return readable_pair(self.split(split)[index]["values"], self._alphabet)

    def own_rows(self, examples: Sequence[tuple[str, str]]) -> Rows:
        """Pairs of texts."""
        pairs = [Pair(first, second, 0) for first, second in examples]
        return encode(pairs, self._alphabet, self.config.max_length, learn=False)

    @property
    def _alphabet(self) -> Alphabet:
        return Alphabet(self.known_facts["alphabet"])

    @cached_property
    def _source(self) -> Source:
        if self.config.data == "rfc":
            return rfc.locate(self.data_dir, "retrieval task.data=rfc")
        remedy = "task.data=rfc, a stand-in under its own name"
        return find_or_say(self.name, self.data_dir, aan.PLACES, aan.WHAT, remedy)

    def _rfc(self) -> Iterator[tuple[str, Pair]]:
        config = self.config
        corpus = rfc.read_corpus(self._source, config.max_length)
        pairs = matched_pairs(corpus, config.max_in_degree, config.year_window, config.data_seed)
        splits = split_pairs(pairs, config.sizes, config.data_seed)
        self.found["corpus"] = {
            "documents": len(corpus.ids),
            "newest": int(corpus.ids[-1]),
            "citations": len(corpus.citations),
            "pairs": len(pairs.labels),
        }
        self.found["baselines"] = baselines(corpus, splits)
        for split, chosen in splits.items():
            for first, second, label in zip(*(column.tolist() for column in chosen), strict=True):
                yield split, Pair(corpus.texts[first], corpus.texts[second], label)


def baselines(corpus: rfc.Corpus, splits: dict[str, Pairs]) -> dict[str, dict[str, float]]:
    """Accuracy and AUC on test of scores that read no sentence, each fitted on train.

    The first is the one to beat; the others show that neither age nor fame gives the answer.
    """
    train, test = splits["train"], splits["test"]
    degree = in_degrees(corpus)
    in_train = np.union1d(train.first, train.second).tolist()
    scores = {
        "TF-IDF cosine": lambda p: tfidf_cosines(corpus.texts, in_train, p.first, p.second),
        "years between": lambda p: (corpus.years[p.first] - corpus.years[p.second]) * 1.0,
        "in-degree": lambda p: degree[p.second] * 1.0,
    }
    return {
        name: judge(score(train), train.labels, score(test), test.labels)
        for name, score in scores.items()
    }
