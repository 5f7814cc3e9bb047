"""A task: from a source to prepared data to batches. Each has a file that says what is its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from datasets import Dataset
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from tasks.loader import Batch, Encode, TrainLoader, TrainOrder, eval_loader, symbols
from tasks.storage.meta import Meta, Origin
from tasks.storage.rows import Rows
from tasks.storage.store import Prepared, Recipe, load, prepare

__all__ = ["Batch", "Task", "TaskSpec"]

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


class Task(LightningDataModule):
    """Prepares a task's data once, and serves batches of it.

    The order of use is ``prepare_data``, ``setup``, then the splits, ``meta`` and the loaders; for
    training, set ``total_batches`` when the size of the training split has told the length of the
    run. A subclass has the class attributes, ``spec``, ``origin`` and ``rows``, and ``encode`` if
    its input is not one sequence of symbols.

    Args:
        config: an instance of the class's ``Config``.
        data_dir: where sources are looked for and prepared data are kept.
        batch_size: samples per training step, over all devices.
        eval_batch_size: samples per batch and device, in validation and test.
        seed: of the order of training; not of the data.
        total_batches: length of the training run in batches.
        num_workers: processes that read batches ahead; 0: none, reading is cheap.
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
    ) -> None:
        super().__init__()
        self.config = config
        self.data_dir = data_dir
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.total_batches = total_batches
        self.num_workers = num_workers
        self._prepared: Prepared | None = None

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

    @property
    def encode(self) -> Encode:
        """How stored rows become what the model takes; picklable, for the reading processes."""
        return symbols

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

    def split(self, name: str) -> Dataset:
        """A stored split, columns ``values`` and ``label``, memory-mapped."""
        return self._open().splits[name]

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
            DataError: they are not whole.
        """
        if self._prepared is None:
            self._prepared = load(self.folder)

    def train_dataloader(self) -> TrainLoader:
        """The whole training run as one resumable pass of ``total_batches`` batches."""
        if self.total_batches is None:
            raise RuntimeError("set total_batches to the length of the training run first")
        rank, world_size = self._place()
        order = TrainOrder(
            len(self.train), self.batch_size, self.total_batches, self.seed, rank, world_size
        )
        return TrainLoader(self.train, order, self.encode, self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation split, in order, nothing dropped."""
        return self._eval_loader(self.val)

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test split, in order, nothing dropped."""
        return self._eval_loader(self.test)

    def _eval_loader(self, dataset: Dataset) -> DataLoader[Batch]:
        place = self._place()
        return eval_loader(dataset, self.eval_batch_size, self.encode, self.num_workers, *place)

    def _open(self) -> Prepared:
        if self._prepared is None:
            raise RuntimeError("call prepare_data() and setup() first")
        return self._prepared

    def _place(self) -> tuple[int, int]:
        """This process's rank, and how many there are."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size
