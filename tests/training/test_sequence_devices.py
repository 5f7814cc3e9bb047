"""A run whose sequences several processes hold together is the run of one process."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from chela.config.schema import parse
from chela.errors import RunError
from chela.training.engine import resolve
from chela.training.guards import out_of_memory
from chela.training.run import run
from tests.training.test_distributed import (
    ON_GPU,
    QUIET,
    STOP_AT_7,
    assert_same_curve,
    record,
    rows,
    train,
)

NORM = ["model.norm=batch", "model.pooled_norm=batch"]
TOGETHER = "trainer.sequence_devices=2"


@pytest.mark.process
def test_processes_that_hold_sequences_together_are_one_run(
    composed, tmp_path: Path, shared_data: Path
) -> None:
    """Begun by four, two to a sequence, stopped by a signal, and ended by two."""
    one, several = tmp_path / "one", tmp_path / "several"
    run(composed(*QUIET, *NORM, f"output_dir={one}"))
    for devices, before, status in ((4, STOP_AT_7, 128 + signal.SIGTERM), (2, "", 0)):
        words = [*NORM, TOGETHER, f"trainer.devices={devices}"]
        result = train(several, shared_data, *words, before=before)
        assert result.returncode == status, result.stderr
    assert_same_curve(one, several)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("where", [ON_GPU])
def test_two_gpus_train_as_one(where, precision: str, tmp_path: Path, shared_data: Path) -> None:
    words = [*NORM, *where, f"trainer.precision={precision}"]
    for name, more in (("one", []), ("two", ["trainer.devices=2", TOGETHER])):
        result = train(tmp_path / name, shared_data, *words, *more)
        assert result.returncode == 0, result.stderr
    one, two = (rows(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) == 12
    for a, b in zip(one, two, strict=True):
        rel = 1e-4 if precision == "float32" else 2e-2
        assert float(b["train/loss"]) == pytest.approx(float(a["train/loss"]), rel=rel)
    assert record(tmp_path / "two")["test"]["n"] == record(tmp_path / "one")["test"]["n"] == 50


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["trainer.devices=3"],
            "sequence_devices=2 does not divide the 3 .* try: trainer.devices=4",
        ),
        (["trainer.devices=6"], "batch_size=16 cannot be split over 3 devices"),
        (["trainer.devices=2", "model.dim=1"], "=2, but the model has 1 channels, of which each"),
    ],
)
def test_devices_that_do_not_go_together_are_refused(words, message: str, composed) -> None:
    config = parse(composed(TOGETHER, *words))
    with pytest.raises(RunError, match=message.replace(".*", r"(.|\n)*")):
        resolve(config)


def test_a_sequence_that_no_gpu_can_hold_is_to_be_held_by_more(
    composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 6 << 30)
    trainer = parse(composed(TOGETHER, "trainer.devices=2", "trainer.batch_size=1")).trainer
    said = out_of_memory(trainer, 1 << 20, 7 << 30)
    assert "try: trainer.devices=4 trainer.sequence_devices=4 (about 3.0 GiB)" in said
    trainer = parse(composed("trainer.batch_size=3")).trainer
    assert "try: trainer.micro_batch_size=1 (about 2.0 GiB)" in out_of_memory(trainer, 9, 7 << 30)


def test_devices_that_hold_a_sequence_are_no_part_of_what_is_computed(composed) -> None:
    assert parse(composed(TOGETHER, "trainer.devices=2")).identity == parse(composed()).identity
