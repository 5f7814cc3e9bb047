"""How a task's batches reach a model: their order, their sizes, and what reads them."""

from __future__ import annotations

from functools import cached_property

import torch
from lightning import LightningDataModule

from chela.config.settings import TrainerConfig
from chela.training.engine import Engine
from tasks.base import Task
from tasks.loader import EvalLoader, Reader, TrainLoader
from tasks.order import TrainOrder
from tasks.padding import widths_up_to


class DataModule(LightningDataModule):
    """The batches of an open task, for the model that is trained on them.

    Args:
        task: after ``setup``.
        config: sizes of batches, the window of lengths, the processes that read.
        engine: that computes; where there are programs for each length, batches have few.
        seed: of the order of training.
        steps: length of the training run in batches.
    """

    def __init__(
        self, task: Task, config: TrainerConfig, engine: Engine, seed: int, steps: int
    ) -> None:
        super().__init__()
        self.task, self.config, self.engine = task, config, engine
        self.seed, self.steps = seed, steps
        self._readers: dict[str, Reader] = {}

    @cached_property  # the splits themselves take memory, and would change the answer
    def on_device(self) -> bool:
        """Whether the splits are kept on the GPU; ``auto``: in a quarter of what is free."""
        device, asked = self.engine.device, self.engine.data_on_device
        if device.type != "cuda" or asked == "never":
            return False
        needed = sum(split.bytes for split in self.task.meta.splits.values())
        free, _ = torch.cuda.mem_get_info(device)
        return asked == "always" or needed <= free // 4

    @property
    def place(self) -> str:
        """Where batches come from, in words."""
        return "on the GPU" if self.on_device else "read from disk"

    def train_dataloader(self) -> TrainLoader:
        """The whole training run as one resumable pass of ``steps`` batches."""
        samples = self.task.samples("train")
        window = self.config.length_window
        order = TrainOrder(
            len(samples),
            self.config.batch_size,
            self.steps,
            self.seed,
            window=window,
            lengths=samples.lengths if window > 1 else None,
            endless=self.task.endless,
        )
        return TrainLoader(self._reader("train"), order, *self._share())

    def val_dataloader(self) -> EvalLoader:
        """The split that selects, in order, nothing dropped."""
        return self._eval_loader(self.task.selecting)

    def test_dataloader(self) -> EvalLoader:
        """The test split, in order, nothing dropped."""
        return self._eval_loader("test")

    def close(self) -> None:
        """Give back the memory of the splits that are kept on a GPU."""
        self._readers.clear()

    def _eval_loader(self, name: str) -> EvalLoader:
        size = self.config.eval_batch_size
        return EvalLoader(self._reader(name), len(self.task.samples(name)), size, *self._share())

    def _reader(self, name: str) -> Reader:
        """What reads the split: made once, since a copy on the device is what makes it fast."""
        if name not in self._readers:
            task, samples = self.task, self.task.samples(name)
            if self.on_device:
                device = self.trainer.strategy.root_device if self.trainer else self.engine.device
                self._readers[name] = samples.on_device(device)
            else:
                longest = task.spec.max_length * task.encoding.channels
                few = self.engine.step != "eager" and task.is_padded
                widths = widths_up_to(longest) if few else ()
                self._readers[name] = samples.on_disk(self.config.num_workers, widths)
        return self._readers[name]

    def _share(self) -> tuple[int, int]:
        """Whose samples this process is given, and among how many they are divided.

        Processes that hold a sequence together are given the same.
        """
        if self.trainer is None:
            return 0, 1
        together = self.engine.sequence_devices
        return self.trainer.global_rank // together, self.trainer.world_size // together
