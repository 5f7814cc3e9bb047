"""What only a GPU can show of a step: `pytest -m gpu`."""

from __future__ import annotations

import signal

import pytest
import torch
from torch import nn

from chela.training.graphs import StepGraphs
from chela.training.rehearsal import put_back
from chela.training.run import run
from tests.training.replayed import watch
from tests.training.runs import record_of
from tests.training.test_resume import contents, same, signal_at, without_speed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

ON_GPU = [
    "trainer.accelerator=gpu",
    "trainer.max_steps=24",
    "trainer.validate_every_steps=10",
    "trainer.deterministic=true",
    "model.dim=32",
    "model.mixer.qk_dim=32",
]


def curve(composed, tmp_path, name: str, *more: str) -> list[float]:
    config = composed(*ON_GPU, *more, f"output_dir={tmp_path}/{name}")
    run(config)
    record = record_of(config)
    return [row["train/loss"] for row in record["metrics"] if "train/loss" in row]


RAGGED = ["task.min_length=30", "trainer.length_window=4"]


@pytest.mark.parametrize("more", [[], RAGGED, ["model.norm=batch", *RAGGED]])
def test_a_graph_trains_as_an_eager_step_does(composed, tmp_path, more) -> None:
    same_numbers = ["model.dropout=0", "trainer.precision=float32", *more]
    eager = curve(composed, tmp_path, "eager", "trainer.step=eager", *same_numbers)
    graph = curve(composed, tmp_path, "graph", "trainer.step=graph", *same_numbers)
    plain = curve(composed, tmp_path, "plain", "kernels=torch", "trainer.step=eager", *same_numbers)
    assert len(eager) == 6
    assert graph == pytest.approx(eager, rel=1e-4)
    assert plain == pytest.approx(eager, rel=1e-4)


@pytest.mark.parametrize("more", [[], ["optimizer=muon"]])
def test_each_width_is_recorded_at_the_start_and_leaves_no_trace(
    composed, tmp_path, monkeypatch, more
) -> None:
    recordings = watch(monkeypatch, StepGraphs)
    lengths = ["task.min_length=5", "trainer.length_window=4"]
    curve(composed, tmp_path, "graph", "trainer.step=graph", "model.norm=batch", *lengths, *more)
    (recorded,) = recordings
    assert len(set(recorded.widths)) == len(recorded.widths) > 1
    assert not recorded.changed


def test_a_rehearsal_keeps_nothing_on_the_gpu_that_a_step_does_not() -> None:
    weights = nn.Linear(64, 64, device="cuda")
    optimizer = torch.optim.AdamW(weights.parameters(), fused=True)
    weights(torch.ones(64, device="cuda")).sum().backward()
    optimizer.step()
    before = torch.cuda.memory_allocated()
    with put_back(weights, optimizer):
        assert torch.cuda.memory_allocated() == before


def test_a_graph_trains_with_muon_as_an_eager_step_does(composed, tmp_path) -> None:
    same_numbers = ["model.dropout=0", "trainer.precision=float32", "optimizer=muon"]
    eager = curve(composed, tmp_path, "eager", "trainer.step=eager", *same_numbers)
    graph = curve(composed, tmp_path, "graph", "trainer.step=graph", *same_numbers)
    # Its iteration is in bf16, where a gradient's last bit may become the update's eighth.
    assert graph == pytest.approx(eager, rel=1e-3)


def test_data_on_the_gpu_train_as_those_on_disk_do(composed, tmp_path) -> None:
    on_gpu = curve(composed, tmp_path, "on", "trainer.data_on_device=always", "model.dropout=0")
    on_disk = curve(composed, tmp_path, "off", "trainer.data_on_device=never", "model.dropout=0")
    assert on_gpu == pytest.approx(on_disk, rel=2e-2)  # bf16, other padding


# After the first step, at a validation, and later.
@pytest.mark.parametrize(
    ("step", "stop", "more"),
    [
        ("graph", 1, []),
        ("graph", 10, []),
        ("graph", 17, []),
        ("graph", 17, ["model.norm=batch", *RAGGED]),
        ("graph", 17, ["optimizer=muon"]),
        ("eager", 17, []),
    ],
)
def test_resumed_equals_uninterrupted_bit_for_bit(
    composed, tmp_path, monkeypatch, step, stop, more
) -> None:
    form = [f"trainer.step={step}", *more]
    whole = composed(*ON_GPU, *form, f"output_dir={tmp_path}/whole")
    run(whole)
    parts = composed(*ON_GPU, *form, f"output_dir={tmp_path}/parts")
    signal_at(monkeypatch, stop, signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        run(parts)
    assert stopped.value.code == 128 + signal.SIGTERM
    run(parts)
    (last, record), (other_last, other_record) = contents(whole), contents(parts)
    for part in ["state_dict", "optimizer_states", "lr_schedulers"]:
        assert same(last[part], other_last[part]), part
    assert without_speed(record["metrics"]) == without_speed(other_record["metrics"])
    assert record["test"] == other_record["test"]
