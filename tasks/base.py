"""A task: from a source to prepared data to batches."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

from datasets import Dataset

from tasks.definition import Definition
from tasks.errors import DataError
from tasks.fit import misfit
from tasks.loader import Batch, EvalLoader
from tasks.samples import Samples
from tasks.spec import PROTOCOLS, Protocol, TaskSpec
from tasks.storage.meta import Meta
from tasks.storage.store import SPLITS, Prepared, Recipe, load, prepare

__all__ = ["PROTOCOLS", "Batch", "Protocol", "Task", "TaskSpec"]


class Task(Definition):
    """Prepares the data that a task defines, once, and opens them.

    The order of use is ``prepare_data``, ``setup``, then the splits, ``meta`` and ``batches``. What
    a task of one's own has stands in ``Definition``.
    """

    def __init__(self, config: Any, data_dir: Path) -> None:
        super().__init__(config, data_dir)
        self._prepared: Prepared | None = None
        self._expected: Mapping[str, Any] | None = None  # see expect
        self._lexicon: str | None = None  # likewise

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
            DataError: they are not there, not whole, or not what ``spec`` says.
        """
        if self._prepared is None:
            if not self.folder.exists():
                raise self._not_prepared()
            prepared = load(self.folder)
            self._refuse_others(prepared.meta)
            self._prepared = prepared  # which ``spec`` may ask
            try:
                self._refuse_misfits(prepared)
            except DataError:
                self._prepared = None
                raise

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

    def _refuse_misfits(self, prepared: Prepared) -> None:
        for name in SPLITS:
            if name not in prepared.splits:
                continue
            found = misfit(prepared.splits[name], self.spec, self.encoding, not self.endless)
            if found is not None:
                row, what = found
                raise DataError(
                    f"{self.name} is not what its spec says: row {row} of {name} has {what}.\n"
                    f"  try: put {type(self).__name__}.spec or the source right, "
                    f"and delete {self.folder}"
                )

    def _not_prepared(self) -> DataError:
        relative = "" if self.data_dir.is_absolute() else f" (it is relative to {Path.cwd()})"
        return DataError(
            f"{self.name} is not prepared here: there is no {self.folder}.\n"
            "  try: prepare_data() first, or chela prepare task=... with these keys, "
            f"or set data_dir{relative}"
        )
