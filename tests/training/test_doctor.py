"""What the doctor finds right, and what it finds wrong."""

from __future__ import annotations

import re
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from chela import doctor
from chela.commands.doctor import INDENT
from chela.config.schema import parse
from chela.doctor import Finding, diagnose
from chela.kernels import short_conv
from chela.training import build
from chela.training.data import DataModule
from tasks.base import Batch
from tasks.order import batch_rows
from tests.test_data_commands import LISTOPS


def findings(config) -> dict[str, Finding]:
    found = diagnose(parse(config), overfits=True)
    return {finding.subject: finding for finding in found}


def test_all_is_well(composed) -> None:
    config = composed("model.dim=32")
    task = build.build_task(parse(config))
    task.prepare_data()
    found = findings(config)
    assert all(finding.fine for finding in found.values()), found
    assert set(found) >= {
        "versions",
        "device",
        "long_conv",
        "disk",
        "W&B",
        "data",
        "model",
        "overfit",
    }
    assert found["same bits"].text.endswith("the same products, 0 with other results")
    assert "from float64 (at most 1e-05)" in found["short_conv"].text
    task.setup()
    assert task.meta.fingerprint[:12] in found["data"].text


def test_a_check_is_named_before_it_runs(composed, monkeypatch, tmp_path: Path) -> None:
    begun, original, during = [], short_conv.convolve, []

    def seen(*given, **choices):
        during.append(begun[-1])
        return original(*given, **choices)

    monkeypatch.setattr(short_conv, "convolve", seen)
    for finding in diagnose(parse(composed(f"data_dir={tmp_path}")), begun.append):
        assert begun[-1] == finding.subject
        assert len(finding.subject) < INDENT - 6  # the column of the subjects
    assert set(during) == {"short_conv"}
    assert len(begun) == len({*begun}) > 8


def test_one_model_is_built_at_a_time(composed, monkeypatch) -> None:
    """A large one takes its time and its room; the one that learns four samples is another."""
    config = parse(composed())
    build.build_task(config).prepare_data()
    original, built, alive = build.build_model, [], []

    def build_model(*given: object) -> object:
        alive.append(sum(each() is not None for each in built))
        model = original(*given)
        built.append(weakref.ref(model))
        return model

    monkeypatch.setattr(build, "build_model", build_model)
    found = [finding.subject for finding in diagnose(config, overfits=True)]
    assert found[-3:] == ["model", "memory", "overfit"]
    assert alive == [0, 0]


def test_what_training_would_refuse_is_found(composed) -> None:
    config = composed("trainer.mixing=mixup")
    build.build_task(parse(config)).prepare_data()
    found = findings(config)
    assert not found["model"].fine
    assert "listops has symbols, of which there is no mean" in found["model"].text
    assert "memory" not in found


def test_only_who_asks_waits_for_the_overfit(composed, monkeypatch) -> None:
    config = parse(composed())
    build.build_task(config).prepare_data()
    monkeypatch.setattr(doctor, "SECONDS", 0.0)
    subjects = [finding.subject for finding in diagnose(config)]
    assert [finding.subject for finding in diagnose(config, overfits=True)] == [
        *subjects,
        "overfit",
    ]


def test_data_that_are_not_prepared_are_told_with_the_command(composed, tmp_path: Path) -> None:
    found = findings(composed(f"data_dir={tmp_path / 'empty'}"))
    assert not found["data"].fine
    assert "chela prepare with the same arguments" in found["data"].text
    assert "overfit" not in found
    assert not (tmp_path / "empty").exists()


def test_a_wrong_operation_is_found(composed, monkeypatch, tmp_path: Path) -> None:
    original = short_conv.convolve
    monkeypatch.setattr(
        short_conv,
        "convolve",
        lambda x, *rest, **choices: original(x, *rest, **choices) + (x.dtype == torch.float32) / 99,
    )
    found = findings(composed(f"data_dir={tmp_path}"))["short_conv"]
    assert not found.fine
    assert "kernels=torch" in found.text


def test_a_device_that_computes_something_else_now_and_then_is_found(
    composed, monkeypatch, tmp_path: Path
) -> None:
    original, calls = doctor.orthogonalize, []

    def faulty(matrices: Tensor) -> Tensor:
        calls.append(matrices)
        return original(matrices) + (len(calls) == 3)

    monkeypatch.setattr(doctor, "orthogonalize", faulty)
    found = findings(composed(f"data_dir={tmp_path}"))["same bits"]
    assert not found.fine
    assert ", 1 with other results" in found.text


def test_an_operation_that_fails_is_a_line(composed, monkeypatch, tmp_path: Path) -> None:
    def broken(*_, **__):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(short_conv, "convolve", broken)
    found = findings(composed(f"data_dir={tmp_path}"))
    assert "RuntimeError: no compiler" in found["short_conv"].text
    assert found["long_conv"].fine


def test_a_model_that_cannot_learn_is_found(composed, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.5)
    monkeypatch.setattr(doctor, "LEARNED", -1.0)  # no loss is under that
    config = composed()
    build.build_task(parse(config)).prepare_data()
    assert not findings(config)["overfit"].fine


class Blind(nn.Module):
    """Learns which classes are frequent, whatever it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(10))

    def forward(self, values, lengths):
        return self.logits.expand(len(values), -1)


def test_a_model_that_ignores_its_input_is_found(composed, monkeypatch) -> None:
    """Though the first samples of training are all of one class."""
    task = build.build_task(parse(composed()))
    task.prepare_data()
    task.setup()
    labels = np.array(task.train["label"])

    def first(seed: int) -> set[int]:
        return set(labels[batch_rows(seed, len(labels), doctor.SAMPLES, 0)].tolist())

    seed = next(seed for seed in range(100_000) if len(first(seed)) == 1)
    monkeypatch.setattr(doctor, "SECONDS", 3.0)  # enough to learn one class
    monkeypatch.setattr(build, "build_model", lambda *_: Blind())
    assert not findings(composed(f"seed={seed}"))["overfit"].fine


def test_labels_of_one_class_are_told(composed, monkeypatch) -> None:
    config = composed()
    build.build_task(parse(config)).prepare_data()
    one = Batch(*(torch.zeros(4, dtype=torch.long) for _ in range(4)))
    monkeypatch.setattr(DataModule, "train_dataloader", lambda _: [one, one])
    found = findings(config)["overfit"]
    assert not found.fine
    assert "all of one class\n  try: look at the task's labels" in found.text


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_ends_the_visit(composed) -> None:
    found = findings(composed("trainer.accelerator=gpu"))
    assert not found["device"].fine
    assert "overfit" not in found


@pytest.mark.training
def test_the_command_prints_a_line_each_and_exits_with_1(command, tmp_path: Path) -> None:
    result = command("doctor", "--overfit", "task=listops", *LISTOPS, f"data_dir={tmp_path}")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert re.search(r"^device +OK    CPU, ", result.stdout, re.MULTILINE)
    assert re.search(r"^data +WRONG not prepared", result.stdout, re.MULTILINE)
