"""What a task says of itself: each has a file with what is its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.errors import DataError
from tasks.loader import Encoding
from tasks.spec import Protocol, Sized, TaskSpec
from tasks.storage.meta import Origin
from tasks.storage.rows import Rows


class Definition(ABC):
    """Where a task's data come from, and what they mean.

    A task has the class attributes, ``spec``, ``origin``, ``rows`` and ``sample``, and ``encoding``
    if its input is not one sequence of symbols.

    Args:
        config: an instance of the class's ``Config``; its ``name`` is the task's, and its folder's
            below ``data_dir``.
        data_dir: where sources are looked for and prepared data are kept.
    """

    version: ClassVar[int]  # raise it when the same source gives other rows than before
    dtype: ClassVar[str] = "uint8"  # of the stored values
    metric: ClassVar[str] = "accuracy"  # that selects, one of those of the objective
    causal: ClassVar[bool] = False  # what comes next is asked: a model must not see it
    # Whether an epoch's training samples differ from those of the last, all of one length: then
    # sample i of epoch e has the number e * n + i.
    endless: ClassVar[bool] = False
    Config: ClassVar[type]

    def __init__(self, config: Any, data_dir: Path) -> None:
        self.config = config
        self.name: str = config.name
        self.data_dir = data_dir
        self.found: dict[str, Any] = {}  # by ``rows``, see ``facts``

    @property
    @abstractmethod
    def spec(self) -> TaskSpec:
        """What a model has to know of the task."""

    @property
    def usual_facts(self) -> Mapping[str, Any]:
        """What ``facts`` says of the usual data, as far as ``spec`` asks it; see ``outline``."""
        return {}

    @abstractmethod
    def origin(self) -> Origin:
        """What determines the prepared data.

        Raises:
            DataError: the source is not there.
        """

    @abstractmethod
    def rows(self) -> Iterator[tuple[str, Rows]]:
        """The rows of ``train``, ``val`` and ``test``, some at a time, split after split.

        Raises:
            DataError: the source is malformed.
        """

    @abstractmethod
    def sample(self, split: str, index: int) -> str | NDArray[np.uint8]:
        """What a person would look at: a text, or an image (H, W) or (H, W, 3).

        Args:
            split: ``train``, ``val`` or ``test``.
            index: the sample's row in it.
        """

    def own_rows(self, examples: Sequence[Any]) -> Rows:
        """Examples of a user's own, each in the form of ``sample``, as rows; their labels are 0.

        Raises:
            DataError: one is malformed, or the task does not say how they are stored.
        """
        what = f"{self.name} does not say how examples of one's own are stored"
        raise DataError(f"{what}.\n  try: a method own_rows in {type(self).__name__}")

    def encode(self, examples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """What a model takes of examples of one's own, values and lengths; see ``own_rows``.

        Raises:
            DataError: see there.
        """
        batch = self.encoding.read(self.own_rows(examples), list(range(len(examples))))
        return batch.values, batch.lengths

    def tokens_of(self, text: str) -> NDArray[Any]:
        """The tokens (n,) of a text, for a model that goes on from it.

        Raises:
            DataError: it has a sign that the task does not know, or the task has no text.
        """
        raise DataError(
            f"{self.name} does not say what a text's tokens are, so no model of it can go on from "
            f"one.\n  try: methods tokens_of and text_of in {type(self).__name__}"
        )

    def prompt_of(self, text: str) -> NDArray[Any]:
        """``tokens_of`` of a text that a model of this task can go on from.

        Raises:
            DataError: see there; or it is no UTF-8, has no token, or more than a sample can have.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:  # what a terminal has sent may be any bytes
            raise DataError(
                "the prompt is not written in UTF-8.\n  try: a terminal that is in UTF-8"
            ) from error
        tokens = self.tokens_of(text) if text else np.empty(0)
        if not len(tokens):
            raise DataError("the prompt is empty, but a model goes on from a token at least")
        if len(tokens) > (longest := self.spec.max_length):
            raise DataError(
                f"the prompt has {len(tokens):,} tokens, but the model was built for {longest:,}.\n"
                f"  try: its last {longest:,}"
            )
        return tokens

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text that tokens stand for, see ``tokens_of``."""
        return " ".join(map(str, tokens))

    _source: Any = None  # of the data, found when it is first asked for; where a task has it

    def find_source(self) -> None:
        """Look for the data's source, before anything is prepared; where ``origin`` does not.

        Raises:
            DataError: it is not there; the message says what to get.
        """
        self._source  # noqa: B018 (raises when there is none)

    def given(self, parameters: Mapping[str, Any]) -> Origin:
        """The official data, or the stand-in that ``config.stand_in`` names."""
        name = self.config.stand_in
        return Origin(self.name, self.version, name or "official", parameters, name is not None)

    def expected_rows(self) -> int | None:
        """How many rows ``rows`` will yield in all, if that is known beforehand: as configured."""
        return self.config.total if isinstance(self.config, Sized) else None

    def facts(self) -> dict[str, Any]:
        """What ``rows`` found out, for ``meta.facts``: plain JSON values, known at its end."""
        return self.found

    @property
    def end(self) -> int | None:
        """The token behind a text, before the next one; None: it has none.

        Raises:
            DataError: the prepared data know it, and are not there.
        """
        return None

    def lexicon(self) -> str | None:
        """What its tokens stand for, in its own form, where the prepared data alone know it.

        It goes with a model to where no data are; see ``expect``. None: the task knows by itself.

        Raises:
            DataError: they are not there.
        """
        return None

    @property
    def encoding(self) -> Encoding:
        """How stored rows become what the model takes: symbols, if a task says nothing else."""
        return Encoding()

    @property
    def protocol(self) -> Protocol:
        """What selects the tested weights, see ``PROTOCOLS``."""
        return "heldout"

    @property
    def evaluation(self) -> dict[str, int]:
        """How a test sees its tokens, beside a number: ``{"context": 2048, "stride": 2048}``."""
        return {}

    @property
    def kinds(self) -> Sequence[str]:
        """What the labels of a task of tokens stand for, if its test tells its kinds apart."""
        return ()

    @property
    def selecting(self) -> str:
        """The split whose best ``metric`` selects."""
        return "test" if self.protocol == "lra" else "val"
