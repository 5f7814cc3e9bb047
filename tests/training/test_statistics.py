"""Evaluation uses what BatchNorm's statistics are over the latest batches, whatever came before."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from chela.config.schema import parse
from chela.layers.norms import BatchNorm
from chela.training import build, statistics
from chela.training.data import DataModule
from chela.training.engine import Engine
from chela.training.folder import RunFolder
from tests.training.test_resume import assert_resumes, contents

pytestmark = pytest.mark.training

BATCH_NORM = ["model.norm=batch", "model.dropout=0.3", "trainer.length_window=4"]


class Watch(Callback):
    """What a validation finds: the averages, the weights and the random numbers to come."""

    def __init__(self) -> None:
        self.found: list[dict[str, torch.Tensor]] = []
        self.random: list[torch.Tensor] = []

    def on_validation_epoch_start(self, trainer, pl_module) -> None:
        self.found.append({key: x.clone() for key, x in pl_module.model.state_dict().items()})
        self.random.append(torch.get_rng_state())
        assert not pl_module.model.training


def trained(config, *callbacks: Callback):
    """A module after twelve steps, validated after every five; and its task."""
    torch.manual_seed(0)
    checked = parse(config)
    task = build.build_task(checked)
    task.prepare_data()
    task.setup()
    data = DataModule(task, checked.trainer, Engine(), checked.seed, 12)
    module = build.build_module(checked, task.spec, Engine(), 12, task.is_padded)
    folder = RunFolder(checked).path
    trainer = build.build_trainer(checked.trainer, Engine(), folder, 12, 5, callbacks)
    trainer.fit(module, datamodule=data)
    return module, data


def forward_statistics(module, data, batches: range, parts: int = 1) -> dict[str, torch.Tensor]:
    """Plain means over batches of training in equal parts, by a hook on each norm's input."""
    sums: dict[str, torch.Tensor] = {}

    def hook(name):
        def add(norm, arguments, _):
            x, mask = arguments
            real = x if mask is None else x[mask]
            real = real.reshape(-1, x.shape[-1])
            mean, variance = real.mean(0), real.var(0, correction=1)
            for kind, value in (("running_mean", mean), ("running_var", variance)):
                key = f"{name}.{kind}"
                sums[key] = sums.get(key, 0) + value / (len(batches) * parts)

        return add

    norms = {n: m for n, m in module.model.named_modules() if isinstance(m, BatchNorm)}
    handles = [norm.register_forward_hook(hook(name)) for name, norm in norms.items()]
    loader = data.train_dataloader()
    module.model.train()
    with torch.no_grad():
        for number, batch in enumerate(loader):
            if number in batches:
                values, lengths = batch.values.chunk(parts), batch.lengths.chunk(parts)
                for part in zip(values, lengths, strict=True):
                    module.model(*part)
    for handle in handles:
        handle.remove()
    return sums


def assert_evaluated_with_the_mean(config, batches: range, parts: int = 1) -> None:
    """The second validation, after ten steps, finds plain means over ``batches`` in each norm."""
    watch = Watch()
    module, data = trained(config, statistics.RunningStatistics(), watch)
    assert len(watch.found) == 2  # after five steps and after ten
    module.model.load_state_dict(watch.found[1])
    expected = forward_statistics(module, data, batches, parts)
    assert {key for key in watch.found[1] if "running" in key} == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(watch.found[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_validation_sees_the_plain_mean_over_the_latest_batches(composed) -> None:
    config = composed(*BATCH_NORM, "model.dropout=0.0")
    assert_evaluated_with_the_mean(config, range(10))


def test_only_recent_batches_are_looked_at(composed, monkeypatch) -> None:
    monkeypatch.setattr(BatchNorm.__init__, "__defaults__", (3,))
    config = composed(*BATCH_NORM, "model.dropout=0.0")
    assert_evaluated_with_the_mean(config, range(7, 10))


def test_training_does_not_notice(composed) -> None:
    """Weights and random numbers are what they are without it; with dropout, which draws some."""
    seen, unseen = Watch(), Watch()
    trained(composed(*BATCH_NORM), statistics.RunningStatistics(), seen)
    trained(composed(*BATCH_NORM), unseen)
    for one, other in zip(seen.random, unseen.random, strict=True):
        assert torch.equal(one, other)
    for name, value in seen.found[1].items():
        is_statistic = name.endswith(("running_mean", "running_var", "batches"))
        assert torch.equal(value, unseen.found[1][name]) != (is_statistic and "batches" not in name)


@pytest.mark.parametrize("step", [4, 5, 6])
def test_a_run_with_batch_norm_resumes_exactly(composed, tmp_path, monkeypatch, step) -> None:
    whole, broken = composed(*BATCH_NORM, f"output_dir={tmp_path / 'whole'}"), composed(*BATCH_NORM)
    assert_resumes(monkeypatch, whole, broken, step)
    assert contents(broken)[1]["training"]["sessions"] == 2


def test_the_parts_of_micro_batches_count_alike(composed) -> None:
    """Eighty of them: more than the running average of training goes back."""
    config = composed(*BATCH_NORM, "model.dropout=0.0", "trainer.micro_batch_size=2")
    assert_evaluated_with_the_mean(config, range(10), parts=8)
