"""A task's batches as Lightning uses them."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from chela.config.schema import parse
from chela.training.build import build_task
from chela.training.data import DataModule
from chela.training.engine import resolve
from tasks.base import Batch

pytestmark = pytest.mark.training


def data_of(composed, *overrides: str, steps: int) -> DataModule:
    config = parse(composed(*overrides))
    task = build_task(config)
    task.prepare_data()
    task.setup()
    return DataModule(task, config.trainer, resolve(config), config.seed, steps)


class Recorder(L.LightningModule):
    """Notes which rows it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.trained: list[list[int]] = []
        self.evaluated: list[list[int]] = []

    def training_step(self, batch: Batch, number: int) -> Tensor:
        assert isinstance(batch, Batch)
        self.trained.append(batch.index.tolist())
        return self.weight * batch.targets.sum()

    def validation_step(self, batch: Batch, number: int) -> None:
        self.evaluated.append(batch.index.tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_resumes_where_it_stopped(composed, tmp_path: Path, workers: int) -> None:
    def trained(steps: int, checkpoint: Path | None = None) -> Recorder:
        module = Recorder()
        trainer = L.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            val_check_interval=5,
            check_val_every_n_epoch=None,
            use_distributed_sampler=False,
        )
        data = data_of(composed, f"trainer.num_workers={workers}", steps=14)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return module

    whole, half = trained(14), trained(6)
    assert half.trained == whole.trained[:6]
    assert trained(14, tmp_path / "6.ckpt").trained == whole.trained[6:]
    rows = [row for batch in half.evaluated for row in batch]
    assert rows == list(range(50))


def test_the_seed_of_the_run_orders_and_does_not_choose_the_data(composed) -> None:
    first, second = (data_of(composed, f"seed={seed}", steps=3) for seed in (0, 1))
    assert first.task.meta == second.task.meta
    orders = [[each.index.tolist() for each in data.train_dataloader()] for data in (first, second)]
    assert orders[0] != orders[1]
