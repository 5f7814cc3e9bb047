"""A task: from a source to prepared data to batches. Each has a file that says what is its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from datasets import Dataset
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor

from tasks.errors import DataError
from tasks.loader import (
    Batch,
    DiskReader,
    Encoding,
    EvalLoader,
    Reader,
    TrainLoader,
    TrainOrder,
    widths_up_to,
)
from tasks.resident import DeviceReader
from tasks.spec import PROTOCOLS, Protocol, TaskSpec
from tasks.storage.meta import Meta, Origin
from tasks.storage.rows import Rows
from tasks.storage.store import Prepared, Recipe, lengths_of, load, prepare

__all__ = ["PROTOCOLS", "Batch", "Protocol", "Task", "TaskSpec"]

CPU = torch.device("cpu")
DataOnDevice = Literal["auto", "always", "never"]


class Task(LightningDataModule):
    """Prepares a task's data once, and serves batches of it.

    The order of use is ``prepare_data``, ``setup``, then the splits, ``meta`` and the loaders; for
    training, set ``total_batches`` when the size of the training split has told the length of the
    run. A subclass has the class attributes, ``spec``, ``origin`` and ``rows``, and ``encoding`` if
    its input is not one sequence of symbols.

    Args:
        config: an instance of the class's ``Config``.
        data_dir: where sources are looked for and prepared data are kept.
        batch_size: samples per training step, over all devices.
        eval_batch_size: samples per batch and device, in validation and test.
        seed: of the order of training; not of the data.
        total_batches: length of the training run in batches.
        num_workers: processes that read batches ahead; 0: none, reading is cheap.
        window: batches of training sorted by length together, see ``TrainOrder``.
        device: where the model computes.
        data_on_device: whether a GPU keeps the splits: always, never, or if they are small.
        few_lengths: pad batches to a few lengths, for a model that is compiled for each.
    """

    name: str  # of the task, and of its folder below data_dir
    version: ClassVar[int]  # raise it when the same source gives other rows than before
    dtype: ClassVar[str] = "uint8"  # of the stored values
    Config: ClassVar[type]

    def __init__(
        self,
        config: Any,
        *,
        data_dir: Path,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        total_batches: int | None = None,
        num_workers: int = 0,
        window: int = 1,
        device: torch.device = CPU,
        data_on_device: DataOnDevice = "auto",
        few_lengths: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.data_dir = data_dir
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.total_batches = total_batches
        self.num_workers = num_workers
        self.window = window
        self.device = device
        self.data_on_device = data_on_device
        self.few_lengths = few_lengths
        self._prepared: Prepared | None = None
        self._expected: Mapping[str, Any] | None = None  # see expect
        self._readers: dict[str, Reader] = {}

    @property
    @abstractmethod
    def spec(self) -> TaskSpec:
        """What a model has to know of the task."""

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

    def find_source(self) -> None:
        """Look for the data's source, before anything is prepared; where ``origin`` does not.

        Raises:
            DataError: it is not there; the message says what to get.
        """

    def expected_rows(self) -> int | None:
        """How many rows ``rows`` will yield in all, if that is known beforehand."""
        return None

    def facts(self) -> dict[str, Any]:
        """What ``rows`` found out, for ``meta.facts``: plain JSON values, known at its end."""
        return {}

    def expect(self, data: Mapping[str, Any]) -> None:
        """Take the data for those that a record describes: then ``spec`` and ``encode`` need none.

        They are opened when they are first asked for, prepared if they are not there, and refused
        if they are others.

        Args:
            data: ``Meta.summary`` of them; ``spec`` raises KeyError for a fact that is not in it.
        """
        self._expected = {"facts": data.get("facts") or {}, "fingerprint": data["fingerprint"]}

    @property
    def known_facts(self) -> Mapping[str, Any]:
        """What ``facts`` said when the data were prepared."""
        return self.meta.facts if self._expected is None else self._expected["facts"]

    @property
    def encoding(self) -> Encoding:
        """How stored rows become what the model takes: symbols, if a task says nothing else."""
        return Encoding()

    @property
    def protocol(self) -> Protocol:
        """What selects the tested weights, see ``PROTOCOLS``."""
        return "heldout"

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
        return self.split("test" if self.protocol == "lra" else "val")

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

    @cached_property  # the splits themselves take memory, and would change the answer
    def on_device(self) -> bool:
        """Whether the splits are kept on the GPU; ``auto``: in a quarter of what is free."""
        if self.device.type != "cuda" or self.data_on_device == "never":
            return False
        needed = sum(split.bytes for split in self.meta.splits.values())
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.data_on_device == "always" or needed <= free // 4

    def split(self, name: str) -> Dataset:
        """A stored split, columns ``values`` and ``label``, memory-mapped.

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

    def prepare_data(self) -> None:
        """Prepare the data, unless they are there.

        Raises:
            DataError: the source is missing or malformed, or the disk cannot be written.
        """
        if not self.folder.exists():
            self.find_source()
        total = self.expected_rows()
        recipe = Recipe(self.origin(), self.dtype, self.rows, total, self.facts)
        prepare(self.folder, recipe, show=getattr(rank_zero_only, "rank", 0) == 0)

    def setup(self, stage: str | None = None) -> None:
        """Open the prepared data, the same for every stage.

        Raises:
            DataError: they are not there, or not whole.
        """
        if self._prepared is None:
            if not self.folder.exists():
                raise self._not_prepared()
            prepared = load(self.folder)
            self._refuse_others(prepared.meta)
            self._prepared = prepared

    def train_dataloader(self) -> TrainLoader:
        """The whole training run as one resumable pass of ``total_batches`` batches."""
        if self.total_batches is None:
            raise RuntimeError("set total_batches to the length of the training run first")
        order = TrainOrder(
            len(self.train),
            self.batch_size,
            self.total_batches,
            self.seed,
            *self._place(),
            window=self.window,
            lengths=lengths_of(self.train) if self.window > 1 else None,
        )
        return TrainLoader(self._reader("train"), order)

    def val_dataloader(self) -> EvalLoader:
        """The validation split, in order, nothing dropped."""
        return self._eval_loader("test" if self.protocol == "lra" else "val")

    def test_dataloader(self) -> EvalLoader:
        """The test split, in order, nothing dropped."""
        return self._eval_loader("test")

    def close(self) -> None:
        """Give back the memory of the splits that are kept on a GPU."""
        self._readers.clear()

    def _eval_loader(self, name: str) -> EvalLoader:
        size = self.eval_batch_size
        return EvalLoader(self._reader(name), len(self.split(name)), size, *self._place())

    def _reader(self, name: str) -> Reader:
        """What reads the split: made once, since a copy on the device is what makes it fast."""
        if name not in self._readers:
            if self.on_device:
                device = self.device if self.trainer is None else self.trainer.strategy.root_device
                self._readers[name] = DeviceReader(self.split(name), self.encoding, device)
            else:
                longest = self.spec.max_length * self.encoding.channels
                widths = widths_up_to(longest) if self.few_lengths and self.is_padded else ()
                self._readers[name] = DiskReader(
                    self.split(name), self.encoding, self.num_workers, widths
                )
        return self._readers[name]

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
            "  try: prepare_data() first, or python scripts/prepare.py task=... with these keys, "
            f"or set data_dir{relative}"
        )

    def _place(self) -> tuple[int, int]:
        """This process's rank, and how many there are."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size
