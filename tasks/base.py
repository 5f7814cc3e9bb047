"""A task: from a source to prepared data to batches. Each has a file that says what is its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from tasks.errors import DataError
from tasks.loader import Batch, Encoding, EvalLoader
from tasks.samples import Samples
from tasks.spec import PROTOCOLS, Protocol, TaskSpec
from tasks.storage.meta import Meta, Origin
from tasks.storage.rows import Rows
from tasks.storage.store import Prepared, Recipe, load, prepare

__all__ = ["PROTOCOLS", "Batch", "Protocol", "Task", "TaskSpec"]


class Task(ABC):
    """Prepares a task's data once, and knows what they mean.

    The order of use is ``prepare_data``, ``setup``, then the splits, ``meta`` and ``batches``. A
    subclass has the class attributes, ``spec``, ``origin`` and ``rows``, and ``encoding`` if its
    input is not one sequence of symbols.

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
        self._prepared: Prepared | None = None
        self._expected: Mapping[str, Any] | None = None  # see expect
        self._lexicon: str | None = None  # likewise

    @property
    @abstractmethod
    def spec(self) -> TaskSpec:
        """What a model has to know of the task."""

    @property
    def usual_facts(self) -> Mapping[str, Any]:
        """What ``facts`` says of the usual data, as far as ``spec`` asks it; see ``outline``."""
        return {}

    @property
    def outline(self) -> TaskSpec:
        """``spec``; that of the usual data where it is for the data to tell, and they are not here.

        Raises:
            DataError: then, if the task does not know what is usual.
        """
        try:
            return self.spec
        except DataError:
            if not self.usual_facts:
                raise
            usual = copy(self)
            usual.expect({"facts": self.usual_facts, "fingerprint": ""})
            return usual.spec

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
        """How many rows ``rows`` will yield in all, if that is known beforehand."""
        return None

    def facts(self) -> dict[str, Any]:
        """What ``rows`` found out, for ``meta.facts``: plain JSON values, known at its end."""
        return {}

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

    def expect(self, data: Mapping[str, Any], lexicon: str | None = None) -> None:
        """Take the data for those that a record describes: then ``spec`` and ``encode`` need none.

        They are opened when they are first asked for, prepared if they are not there, and refused
        if they are others.

        Args:
            data: ``Meta.summary`` of them; ``spec`` raises KeyError for a fact that is not in it.
            lexicon: what ``lexicon`` said of them, if it is known.
        """
        self._lexicon = lexicon
        known = {each: data.get(each) or {} for each in ("facts", "parameters")}
        self._expected = {**known, "fingerprint": data["fingerprint"]}

    @property
    def known_facts(self) -> Mapping[str, Any]:
        """What ``facts`` said when the data were prepared.

        Raises:
            DataError: they are not, and no record is known either.
        """
        if self._expected is not None:
            return self._expected["facts"]
        self.setup()
        return self.meta.facts

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

    @property
    def folder(self) -> Path:
        """Where the prepared data are."""
        return self.data_dir / self.name / self.origin().key

    @property
    def meta(self) -> Meta:
        """What is known of the prepared data."""
        return self._open().meta

    @property
    def train(self) -> Dataset:
        """The training split."""
        return self.split("train")

    @property
    def val(self) -> Dataset:
        """The split that selects: one of its own, or the test split where the protocol says so."""
        return self.split(self.selecting)

    @property
    def test(self) -> Dataset:
        """The test split."""
        return self.split("test")

    @property
    def is_padded(self) -> bool:
        """Whether batches hold padding: not if all samples are one sequence of the same length."""
        splits = self.meta.splits.values()
        lengths = {split.min_length for split in splits} | {split.max_length for split in splits}
        return self.spec.documents > 1 or len(lengths) > 1

    def split(self, name: str) -> Dataset:
        """A stored split, columns ``values``, ``label``, maybe ``targets``, memory-mapped.

        Raises:
            DataError: the data are so few that it has no sample.
        """
        splits = self._open().splits
        if not len(splits.get(name, ())):
            raise DataError(
                f"{self.name} has no sample in {name}: the data are too few for a split.\n"
                f"  try: more data, and delete {self.folder}"
            )
        return splits[name]

    def samples(self, split: str) -> Samples:
        """A stored split as a model meets it: each row a sample, if a task says nothing else.

        Raises:
            DataError: see ``split``.
        """
        return Samples(self.split(split), self.encoding)

    def prepare_data(self, show: bool = True) -> None:
        """Prepare the data, unless they are there.

        Args:
            show: how far it is, on the terminal.

        Raises:
            DataError: the source is missing or malformed, or the disk cannot be written.
        """
        if not self.folder.exists():
            self.find_source()
        total = self.expected_rows()
        recipe = Recipe(self.origin(), self.dtype, self.rows, total, self.facts)
        prepare(self.folder, recipe, show=show)

    def setup(self) -> None:
        """Open the prepared data.

        Raises:
            DataError: they are not there, or not whole.
        """
        if self._prepared is None:
            if not self.folder.exists():
                raise self._not_prepared()
            prepared = load(self.folder)
            self._refuse_others(prepared.meta)
            self._prepared = prepared

    def batches(self, split: str, size: int) -> EvalLoader:
        """A stored split in order, nothing dropped, as a model takes it; read from disk."""
        samples = self.samples(split)
        return EvalLoader(samples.on_disk(), len(samples), size)

    def _open(self) -> Prepared:
        if self._prepared is None and self._expected is not None:
            self.prepare_data()
            self.setup()
        if self._prepared is None:
            raise RuntimeError("call prepare_data() and setup() first")
        return self._prepared

    def _refuse_others(self, found: Meta) -> None:
        if self._expected is not None and found.fingerprint != self._expected["fingerprint"]:
            raise DataError(
                f"the data of {self.name} below {self.data_dir} are not those of the run "
                f"({found.fingerprint[:12]} now, {self._expected['fingerprint'][:12]} then).\n"
                "  try: data_dir=<the folder that the run had them in>"
            )

    def _not_prepared(self) -> DataError:
        relative = "" if self.data_dir.is_absolute() else f" (it is relative to {Path.cwd()})"
        return DataError(
            f"{self.name} is not prepared here: there is no {self.folder}.\n"
            "  try: prepare_data() first, or chela prepare task=... with these keys, "
            f"or set data_dir{relative}"
        )
