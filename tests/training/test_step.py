"""How a step runs: what is chosen where, and that a graph's step is that without one."""

from __future__ import annotations

import re
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from chela.bench.profiling import Operations
from chela.bench.throughput import measure_on_task
from chela.commands import start
from chela.config.schema import compose_run, parse
from chela.errors import RunError
from chela.training.engine import resolve, step_form
from chela.training.module import TrainingModule
from chela.training.narrow import NarrowWeights
from chela.training.optim import follow_the_device, portable
from chela.training.run import run
from tasks.base import Batch
from tests.conftest import TINY
from tests.training.replayed import Replayed, replay_on_cpu, watch
from tests.training.runs import record_of
from tests.training.test_resume import assert_same_run, signal_at

pytestmark = pytest.mark.training


@pytest.mark.parametrize(
    ("step", "device", "devices", "form"),
    [
        ("auto", "cpu", 1, "eager"),
        ("auto", "cuda", 1, "graph"),
        ("auto", "cuda", 4, "graph"),
        ("eager", "cuda", 1, "eager"),
        ("compile", "cpu", 1, "compile"),
        ("graph", "cuda", 1, "graph"),
    ],
)
def test_what_a_step_is_where(composed, step, device, devices, form) -> None:
    config = parse(composed(f"trainer.step={step}", f"trainer.devices={devices}"))
    assert step_form(config.trainer, torch.device(device)) == form


def test_a_graph_where_there_is_none_is_refused(composed) -> None:
    config = parse(composed("trainer.step=graph"))
    with pytest.raises(RunError, match=r"for GPUs.*\n.*trainer\.step=auto"):
        step_form(config.trainer, torch.device("cpu"))


def rows(config) -> list[dict]:
    record = record_of(config)
    return [
        {name: value for name, value in row.items() if name != "tokens_per_second"}
        for row in record["metrics"]
    ]


def test_nothing_is_compiled_while_a_graph_is_recorded() -> None:
    """As it was for pairs whose lengths, on the way to the model, are views of a flat tensor."""
    compiler = CompileCounter()
    doubled = torch.compile(lambda lengths: lengths * 2, backend=compiler, dynamic=True)
    graphs = Replayed(lambda batch: doubled(batch.lengths.flatten()).sum())
    pairs = torch.arange(8).view(4, 2)
    batch = Batch(torch.zeros(4, 2, 5), pairs, torch.zeros(4), torch.arange(4))
    graphs.record([batch])
    rehearsed = compiler.frame_count
    assert graphs(batch) == 2 * pairs.sum()  # what replays on a CPU computes what is recorded
    assert compiler.frame_count == rehearsed > 0


RAGGED = ["task.min_length=30", "trainer.length_window=4", "model.norm=batch"]
DRAWN = [*RAGGED, "optimizer=muon", "trainer.mixing=cutmix", "model.token_dropout=0.1"]


@pytest.mark.parametrize("more", [["trainer.gradient_clip=null"], RAGGED, DRAWN])
def test_the_step_of_a_graph_is_that_without_one(composed, tmp_path, monkeypatch, more) -> None:
    """Without the graph itself, which a CPU has not: the same bits by the other way.

    Also where what comes before the first step has drawn dropout, averaged and updated weights.
    """
    plain = composed(*more, f"output_dir={tmp_path}/plain")
    run(plain)
    replay_on_cpu(monkeypatch)
    recordings = watch(monkeypatch, Replayed)
    other = composed(*more, f"output_dir={tmp_path}/other")
    run(other)
    assert len(rows(plain)) > 3
    assert rows(plain) == rows(other)
    (recorded,) = recordings  # at once, before the first step
    assert len(set(recorded.widths)) == len(recorded.widths) > 5
    assert not recorded.changed


def test_what_records_every_width_anew_goes_on_as_if_it_had_not_stopped(
    composed, tmp_path, monkeypatch
) -> None:
    replay_on_cpu(monkeypatch)
    whole = composed(*DRAWN, f"output_dir={tmp_path}/whole")
    run(whole)
    parts = composed(*DRAWN, f"output_dir={tmp_path}/parts")
    signal_at(monkeypatch, 7, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(parts)
    recordings = watch(monkeypatch, Replayed)
    run(parts)
    assert_same_run(whole, parts)
    (recorded,) = recordings
    assert not recorded.changed


@pytest.mark.parametrize("stage", ["_beside", "_record"])
@pytest.mark.parametrize("saved", [0, 7])
def test_a_signal_while_widths_are_recorded_stops_before_the_first_step(
    composed, tmp_path, monkeypatch, capsys, stage, saved
) -> None:
    replay_on_cpu(monkeypatch)
    whole, parts = (composed(*RAGGED, f"output_dir={tmp_path}/{each}") for each in ("a", "b"))
    run(whole)
    if saved:
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            signal_at(patch, saved, signal.SIGTERM)
            run(parts)
    original, recorded = getattr(Replayed, stage), []

    def signalled(self, batch):
        recorded.append(batch)
        if len(recorded) == 3:
            signal.raise_signal(signal.SIGTERM)
        return original(self, batch)

    capsys.readouterr()
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(Replayed, stage, signalled)
        run(parts)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert len(recorded) == 3
    said = capsys.readouterr().out
    assert "SIGTERM: stopping before the first step" in said
    left = "the last checkpoint is in" if saved else "nothing was saved yet"
    assert f"stopped by SIGTERM before the first step; {left}" in said
    record = record_of(parts)
    assert (record["status"], record["training"]["steps"]) == ("interrupted", saved)
    run(parts)
    assert_same_run(whole, parts, anew=not saved)


@pytest.mark.parametrize("more", [[], ["model.ffn=none", "model.norm=batch", "optimizer=muon"]])
def test_weights_are_cast_at_once_to_the_same_bits(composed, tmp_path, monkeypatch, more) -> None:
    narrow = ["trainer.precision=bf16", "model.depth=2", *more]
    at_once = composed(*narrow, f"output_dir={tmp_path}/at_once")
    run(at_once)
    monkeypatch.setattr(TrainingModule, "_narrow_weights", lambda self: nullcontext())
    one_by_one = composed(*narrow, f"output_dir={tmp_path}/one_by_one")
    run(one_by_one)
    assert rows(at_once) == rows(one_by_one)


def test_training_alone_smooths_its_targets(composed, tmp_path) -> None:
    still = ("trainer.max_steps=1", "trainer.log_every_steps=1")
    still += ("optimizer.lr=1e-30", "optimizer.kernel_lr=1e-30")
    found = []
    for share in (0.0, 0.5):
        config = composed(
            f"trainer.label_smoothing={share}", f"output_dir={tmp_path}/{share}", *still
        )
        run(config)
        found.append(rows(config))
    plain, smooth = found
    assert [row["val/loss"] for row in plain] == [row["val/loss"] for row in smooth]
    assert plain[0]["train/loss"] != smooth[0]["train/loss"]


def test_what_is_not_trained_gets_no_gradient() -> None:
    """It would count in the norm that gradients are clipped by."""
    blocks = nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 4))
    with NarrowWeights(blocks, torch.bfloat16)(), torch.autocast("cpu", torch.bfloat16):
        blocks(torch.ones(2, 4)).sum().backward()
    assert [each.grad is None for each in blocks.parameters()] == [True, True, False, False]


def test_a_step_in_which_no_linear_map_has_a_part_leaves_them_without_gradients() -> None:
    blocks = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    with NarrowWeights(blocks, torch.bfloat16)():
        blocks[1](torch.ones(2, 4)).sum().backward()
    assert [each.grad is None for each in blocks.parameters()] == [True, True, False, False]


def test_a_step_casts_as_often_whatever_the_depth() -> None:
    casts = []
    for depth in (1, 3):
        blocks = nn.Sequential(*(nn.Linear(4, 4) for _ in range(depth)))
        narrow = NarrowWeights(blocks, torch.bfloat16)
        with Operations() as operations, narrow(), torch.autocast("cpu", torch.bfloat16):
            blocks(torch.ones(2, 4)).sum().backward()
        casts.append({n: operations.calls[n] for n in ("aten._to_copy", "aten._foreach_copy_")})
        for parameter in blocks.parameters():
            assert parameter.grad is not None
            assert parameter.grad.dtype == torch.float32
    assert casts == 2 * [{"aten._to_copy": 2, "aten._foreach_copy_": 1}]  # of x, of all gradients


@pytest.mark.parametrize("size", [1, 5, 16, 100])
def test_the_gradients_of_micro_batches_add_up(composed, tmp_path, size) -> None:
    exact = "model.dropout=0"
    whole = composed(exact, f"output_dir={tmp_path}/whole")
    run(whole)
    parts = composed(exact, f"trainer.micro_batch_size={size}", f"output_dir={tmp_path}/parts")
    run(parts)
    for mine, true in zip(rows(parts), rows(whole), strict=True):
        assert mine == pytest.approx(true, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "told"),
    [("micro_batch_size=4", "one device"), ("batch_size=15", r"over 2 devices\.\n  try: 16$")],
)
def test_batches_that_several_devices_cannot_share_are_refused(composed, given, told) -> None:
    with pytest.raises(RunError, match=told):
        resolve(parse(composed(f"trainer.{given}", "trainer.devices=2")))


def test_what_is_saved_of_an_optimizer_is_for_any_device() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([{"params": [weight], "name": "all"}], lr=0.25, fused=True)
    before = optimizer.state_dict()
    follow_the_device(optimizer, torch.device("cpu"))
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor)
    assert portable(optimizer.state_dict()) == before


BENCHMARK = [*TINY, "--steps=2"]


def test_the_benchmark_on_a_task(shared_data: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "kernels.txt"
    start("bench-training", [*BENCHMARK, f"data_dir={shared_data}", f"--profile={file}"])
    out = capsys.readouterr().out
    forms = [line.split()[1] for line in out.splitlines() if line.startswith("chela  ")]
    assert forms == ["auto,", "torch,"]
    lines = re.findall(r"^  ([\d,]+) launches: (.*)", out, re.M)
    assert len(lines) == 2
    for whole, stages in lines:
        parts = dict(each.rsplit(" ", 1) for each in stages.split(", "))
        assert {"forward", "backward", "clip and books", "optimizer"} <= parts.keys()
        assert int(whole.replace(",", "")) == sum(map(int, parts.values())) > 100
    assert len(re.findall(r"x the \d+\.\d\d ms of the least memory traffic", out)) == 2
    assert "aten.addmm" in out
    assert file.read_text().count("aten.addmm") == 2


def test_the_benchmark_times_nothing_that_is_compiled(shared_data: Path, monkeypatch) -> None:
    """Each length of the run is met before, whether it comes early or late."""
    met: list[torch.Size] = []
    original = TrainingModule.whole_step

    def seen(self, batch):
        met.append(batch.values.shape)
        return original(self, batch)

    monkeypatch.setattr(TrainingModule, "whole_step", seen)
    monkeypatch.setattr("chela.training.build.compile_blocks", lambda *_, **__: None)
    monkeypatch.setattr("chela.training.data.widths_up_to", lambda longest: ())
    monkeypatch.setattr("chela.bench.throughput.WARM_UP", 2)
    config = compose_run([*TINY, f"data_dir={shared_data}", "trainer.step=compile"])
    measure_on_task(config, steps=6)
    number = len(set(met))
    assert number > 3
    assert set(met[2 : 2 + number]) == set(met)


def test_the_benchmark_of_lengths(tmp_path: Path, capsys) -> None:
    file = tmp_path / "speed.png"
    lengths = ["--lengths=16,32", "--tokens=64", f"--plot={file}", "--no-plain"]
    start("bench-training", [*BENCHMARK, *lengths])
    told = capsys.readouterr()
    assert "4x16" in told.out
    assert re.findall(r"^  (loop|step) [\d.]+M tokens/s$", told.err, re.M) == ["loop", "step"] * 2
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_no_lengths_is_refused(shared_data: Path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        start("bench-training", [*BENCHMARK, "--plot=speed.png", f"data_dir={shared_data}"])
    assert ended.value.code == 1
    assert "try: --lengths" in capsys.readouterr().err
