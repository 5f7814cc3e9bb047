"""Samples in other forms, and made of two: what is asked of them, and where there are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from chela.config.schema import parse
from chela.errors import ConfigError, RunError
from chela.training.augmentation import augmentation_of, mix
from chela.training.build import build_module, build_task
from chela.training.engine import resolve
from chela.training.run import run
from tasks.base import Batch
from tasks.pictures import turned
from tasks.spec import TaskSpec
from tests.conftest import composed_of
from tests.tasks.test_forms import batch_of
from tests.training.runs import record_of
from tests.training.test_resume import assert_resumes

STILL = [
    *("task=pathfinder", "task.source=generated", "task.resolution=32", "model=chela"),
    *("task.num_train=16", "task.num_val=8", "task.num_test=8"),
    *("model.dim=32", "model.depth=1", "model.mixer.qk_dim=32", "model.norm=layer"),
    *("model.dropout=0", "optimizer.lr=1e-30", "optimizer.kernel_lr=1e-30"),
    "trainer.augment=false",
    *("trainer.batch_size=16", "trainer.max_steps=5", "schedule.warmup_steps=1"),
    *("trainer.validate_every_steps=5", "trainer.log_every_steps=1"),
    *("trainer.progress=false", "logger=csv"),
]  # fmt: skip


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_mean_of_two_is_by_its_share(channels: tuple[int, ...]) -> None:
    values = torch.rand(3, 5, *channels)
    share = torch.tensor([1.0, 0.75, 0.5])
    mixed = mix(batch_of(values), "mixup", share)
    assert torch.equal(mixed.share, share)
    assert mixed.others.tolist() == [2, 0, 1]
    for row, (other, part) in enumerate([(2, 1.0), (0, 0.75), (1, 0.5)]):
        expected = part * values[row] + (1 - part) * values[other]
        torch.testing.assert_close(mixed.values[row], expected)
    assert torch.equal(mixed.targets, torch.arange(3))


@given(st.integers(1, 6), st.integers(1, 20), st.booleans(), st.integers(0, 99))
def test_a_piece_of_another_counts_by_its_length(
    size: int, length: int, colours: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    values = torch.arange(size)[:, None].expand(size, length).float()
    values = values[..., None].expand(size, length, 3) if colours else values
    mixed = mix(batch_of(values), "cutmix")
    for row in range(size):
        own = (mixed.values[row] == row).reshape(length, -1).all(1)
        other = (mixed.values[row] == (row - 1) % size).reshape(length, -1).all(1)
        assert (own | other).all()
        if size > 1:
            assert mixed.share[row] == pytest.approx(own.float().mean().item())
            assert (~own).int().diff().abs().sum() <= 2  # one piece
            assert (~own).sum() <= (length + 1) // 2


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6), st.integers(0, 99))
def test_a_piece_lies_within_both_sequences(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    at, long = torch.arange(20), torch.tensor(lengths)
    ids = torch.arange(1, len(lengths) + 1)[:, None] * (at < long[:, None])  # padding is 0
    rows = torch.arange(len(lengths))
    mixed = mix(Batch(ids, long, rows, rows), "cutmix")
    assert mixed.values.dtype == ids.dtype
    assert torch.equal(mixed.values == 0, ids == 0)
    own = (mixed.values == ids) & (ids > 0)
    torch.testing.assert_close(mixed.share, own.sum(1) / long)


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_shares_lie_between_a_half_and_all(how) -> None:
    shares = mix(batch_of(torch.rand(4000, 50)), how).share
    assert 0.49 <= shares.min() < 0.51
    assert 0.99 < shares.max() <= 1
    assert shares.mean() == pytest.approx(0.75, abs=0.02)


def losses_of(config: DictConfig) -> list[float]:
    return [row["train/loss"] for row in record_of(config)["metrics"] if "train/loss" in row]


def still(place: Path, *overrides: str) -> DictConfig:
    """Five steps of one batch by weights that do not move."""
    return composed_of(*STILL, f"data_dir={place}/data", f"output_dir={place}/out", *overrides)


@pytest.mark.parametrize(
    ("how", "part"), [("mixing=mixup", 1), ("mixing=cutmix", 3), ("augment=true", 3)]
)
def test_each_step_draws_anew_and_evaluation_does_not(how: str, part: int, tmp_path: Path) -> None:
    """However many samples are computed at once."""
    plain, drawn = still(tmp_path), still(tmp_path, f"trainer.{how}")
    parts = still(tmp_path, f"trainer.{how}", f"trainer.micro_batch_size={part}")
    for config in (plain, drawn, parts):
        run(config)
    assert max(losses_of(plain)) - min(losses_of(plain)) < 1e-5
    assert len(set(losses_of(drawn))) == 5
    assert losses_of(parts) == pytest.approx(losses_of(drawn), rel=1e-5)
    first, second = (record_of(each)["test"]["metrics"]["loss"]["value"] for each in (plain, drawn))
    assert second == pytest.approx(first, rel=1e-5)


def test_pictures_in_another_form_are_mixed(tmp_path: Path) -> None:
    config = parse(still(tmp_path, "trainer.augment=true", "trainer.mixing=mixup"))
    batch, spec = batch_of(torch.rand(8, 1024)), build_task(config).spec
    with torch.random.fork_rng():
        seen = augmentation_of(config.trainer, spec, padded=False)(batch)
    expected = mix(turned(batch), "mixup")
    assert all(map(torch.equal, seen, expected))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda batch: None, "a NoneType"),
        (lambda batch: batch.values, "a Tensor"),
        (lambda batch: batch._replace(values=batch.values[:, :5]), r"values torch.int64 \(3, 5\)"),
        (lambda batch: batch._replace(values=batch.values.int()), r"values torch.int32 \(3, 9\)"),
        (lambda batch: batch._replace(targets=batch.targets[:, None]), r"targets .* \(3, 1\)"),
    ],
)
def test_a_task_that_hands_over_another_batch_is_told_so(
    wrong: Callable[[Batch], Any], said: str, composed
) -> None:
    trainer = parse(composed("trainer.augment=true")).trainer
    spec = TaskSpec("mine", 10, 9, vocab_size=20, input_dim=1, augment=wrong)
    batch = batch_of(torch.zeros(3, 9, dtype=torch.int64))
    asked = r"mine .* Batch of values torch.int64 \(3, 9\), lengths .*TaskSpec.augment makes .*"
    with pytest.raises(RunError, match=asked + said):
        augmentation_of(trainer, spec, padded=False)(batch)


def test_a_resumed_run_draws_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["trainer.augment=true", "trainer.mixing=cutmix", "trainer.max_steps=12"]
    words += ["optimizer.lr=1e-3", "trainer.micro_batch_size=5"]
    whole, broken = (still(tmp_path / each, *words) for each in ("whole", "broken"))
    assert_resumes(monkeypatch, whole, broken)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("how", ["mixing=mixup", "mixing=cutmix", "augment=true"])
def test_each_replay_of_a_graph_draws_anew(how: str, tmp_path: Path) -> None:
    on_gpu = ["trainer.accelerator=gpu", "trainer.step=graph"]
    config = still(tmp_path, *on_gpu, f"trainer.{how}")
    run(config)
    assert len(set(losses_of(config))) == 5


@pytest.mark.parametrize(
    ("how", "words", "padded", "said"),
    [
        ("mixup", ["task=listops"], True, "listops has symbols, of which there is no mean"),
        ("mixup", ["task=image"], True, "the sequences of image have different lengths"),
        ("cutmix", ["task=mqar"], False, "mqar does not ask for the class of one sequence"),
        (
            "cutmix",
            ["task=gratings", "trainer.devices=2", "trainer.sequence_devices=2"],
            False,
            "devices that hold a sequence together would each mix another one",
        ),
        (
            "cutmix",
            ["task=listops", "trainer.devices=2", "trainer.batch_size=2"],
            True,
            "a device has one sample of each batch",
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused(
    how: str, words: list[str], padded: bool, said: str
) -> None:
    small = ["model.dim=16", "model.depth=1", "trainer.accelerator=cpu", f"trainer.mixing={how}"]
    config = parse(composed_of("model=chela", *words, *small))
    with pytest.raises(ConfigError, match=rf"={how} .*{said}.*\n.*trainer\.mixing=none"):
        build_module(config, build_task(config).spec, resolve(config), 1, padded)


SPLIT = ["trainer.devices=2", "trainer.sequence_devices=2"]
SPLIT += ["model.norm=layer", "model.tie_dropout=false"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=text"], "text does not say in which other forms a sample has the same class"),
        (["task=mnist"], "mnist does not say in which other forms"),
        (["task=pathfinder", *SPLIT], "devices that hold a sequence together each have a part of"),
    ],
)
def test_what_has_no_other_form_is_refused(words: list[str], said: str) -> None:
    small = ["model=chela", "trainer.accelerator=cpu", "trainer.augment=true"]
    config = parse(composed_of(*small, *words))
    with pytest.raises(ConfigError, match=rf"=true .*{said}.*\n.*trainer\.augment=false"):
        augmentation_of(config.trainer, build_task(config).outline, padded=False)


@pytest.mark.parametrize("how", ["mixing=cutmix", "augment=true"])
def test_listops_trains_so(how: str, composed) -> None:
    config = composed(f"trainer.{how}", "trainer.max_steps=2")
    run(config)
    assert record_of(config)["status"] == "finished"
