"""A task as Lightning uses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from tasks.base import Batch
from tasks.errors import DataError
from tasks.listops.task import ListOps

Make = Callable[..., ListOps]


def ready(task: ListOps) -> ListOps:
    task.prepare_data()
    task.setup()
    return task


def test_the_order_of_use_is_told(listops: Make) -> None:
    task = listops()
    with pytest.raises(RuntimeError, match=r"prepare_data\(\) and setup\(\)"):
        _ = task.train
    with pytest.raises(RuntimeError, match="total_batches"):
        ready(task).train_dataloader()


def test_what_is_not_prepared_is_not_called_damaged(
    listops: Make, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"listops is not prepared here: there is no data/") as told:
        listops(data_dir=Path("data")).setup()
    assert f"set data_dir (it is relative to {tmp_path})" in str(told.value)
    with pytest.raises(DataError, match=r"prepare\.py task=(.|\n)*or set data_dir$"):
        listops().setup()


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
        return self.weight * batch.labels.sum()

    def validation_step(self, batch: Batch, number: int) -> None:
        self.evaluated.append(batch.index.tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_resumes_where_it_stopped(listops: Make, tmp_path: Path, workers: int) -> None:
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
        task = listops(total_batches=14)
        task.num_workers = workers
        trainer.fit(module, datamodule=task, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return module

    whole, half = trained(14), trained(6)
    assert half.trained == whole.trained[:6]
    assert trained(14, tmp_path / "6.ckpt").trained == whole.trained[6:]
    assert [row for batch in half.evaluated for row in batch] == list(range(11))
