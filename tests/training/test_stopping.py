"""Stopping where a step cannot be saved any more: at once, and in a long validation."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from chela.config import parse
from chela.records.record import read_record
from chela.signals import STOPPING
from chela.training import checkpoints
from chela.training.checkpoints import Checkpointer, Interrupted, StopSignals
from chela.training.folder import RunFolder
from chela.training.module import ClassificationModule
from chela.training.run import Run, run
from tests.conftest import ROOT
from tests.training.test_resume import assert_same_run, contents, signal_at


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uninterrupted")


def test_a_signal_that_comes_twice_is_one_request(monkeypatch) -> None:
    said: list[str] = []
    signals = StopSignals(said.append)
    with signals:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGINT
        assert len(said) == 1
        monkeypatch.setattr(checkpoints, "SAME_REQUEST", 0.0)
        with pytest.raises(Interrupted, match="SIGINT at once"):
            signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(checkpoints, "SAME_REQUEST", 60.0)
        signal.raise_signal(signal.SIGINT)  # an impatient finger does not disturb the end


def test_a_third_signal_ends_the_process() -> None:
    script = """
import signal
from chela.training import checkpoints
from chela.training.checkpoints import Checkpointer, Interrupted, StopSignals
checkpoints.SAME_REQUEST = 0.0
with StopSignals(print):
    for _ in range(3):
        try:
            signal.raise_signal(signal.SIGINT)
        except Interrupted as error:
            print(error, flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGINT
    assert ended.stdout.splitlines()[-1] == "SIGINT at once"


def two_signals(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, number) -> None:
    """Send ourselves two requests to stop at a call of a function, the first of which is 1."""
    original = getattr(owner, name)
    calls: list[str] = []

    def patched(*arguments, **options):
        calls.append(name)
        if len(calls) == call:
            signal.raise_signal(number)
            signal.raise_signal(number)
        return original(*arguments, **options)

    monkeypatch.setattr(checkpoints, "SAME_REQUEST", 0.0)
    monkeypatch.setattr(owner, name, patched)


@pytest.mark.parametrize(
    ("owner", "name", "call", "saved"),
    [
        (ClassificationModule, "training_step", 8, 6),
        (ClassificationModule, "validation_step", 2, 8),  # of step 10
        (torch, "save", 4, 4),  # of step 5, after the best weights of that step
        (Run, "_test", 1, 12),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(
    composed, uninterrupted, monkeypatch, capsys, owner, name, call, saved, number
) -> None:
    whole, broken = (
        composed("trainer.checkpoint_every_steps=2", f"output_dir={uninterrupted}"),
        composed("trainer.checkpoint_every_steps=2"),
    )
    run(whole)
    before = [signal.getsignal(each) for each in STOPPING]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        two_signals(patch, owner, name, call, number)
        run(broken)
    assert stopped.value.code == 128 + number
    assert [signal.getsignal(each) for each in STOPPING] == before
    assert f"stopped by {number.name} at once; the last checkpoint is in" in capsys.readouterr().out
    folder = RunFolder(parse(broken))
    assert read_record(folder.path)["status"] == "interrupted"
    assert not list(folder.path.rglob("*.unfinished"))
    last = folder.last if folder.last.exists() else folder.previous
    assert torch.load(last, weights_only=True)["global_step"] == saved
    run(broken)
    assert_same_run(whole, broken)


def test_a_second_signal_before_the_first_checkpoint(composed, monkeypatch, capsys) -> None:
    config = composed()
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        two_signals(patch, ClassificationModule, "training_step", 2, signal.SIGINT)
        run(config)
    assert "stopped by SIGINT at once; nothing was saved yet" in capsys.readouterr().out
    assert read_record(RunFolder(parse(config)).path)["status"] == "interrupted"
    run(config)
    assert contents(config)[1]["status"] == "finished"


@pytest.mark.parametrize(("name", "status"), [("_outcome", "interrupted"), ("_finish", "finished")])
def test_a_second_signal_waits_for_the_record(composed, monkeypatch, name, status) -> None:
    config = composed()
    if name == "_outcome":  # of a run that was stopped before
        signal_at(monkeypatch, 3, signal.SIGTERM)
    two_signals(monkeypatch, Run, name, 1, signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        run(config)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert read_record(RunFolder(parse(config)).path)["status"] == status


@pytest.mark.parametrize("step", [5, 10, 12])
def test_a_long_validation_is_broken_off(
    composed, uninterrupted, monkeypatch, capsys, step
) -> None:
    """The batch system would not wait for its end; the step before is there to go on from."""
    many = "trainer.eval_batch_size=10"
    whole, broken = composed(many, f"output_dir={uninterrupted}"), composed(many)
    run(whole)
    batches: list[int] = []
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(checkpoints, "GRACE", 0.0)  # each validation is a long one
        signal_at(patch, step, signal.SIGTERM)
        original = Checkpointer.on_validation_batch_end

        def counted(self, trainer, *arguments):
            batches.append(trainer.global_step)
            original(self, trainer, *arguments)

        patch.setattr(Checkpointer, "on_validation_batch_end", counted)
        run(broken)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert batches.count(step) == 1  # of 5
    said = f"stopped by SIGTERM in the validation of step {step}; the last checkpoint is in"
    assert said in capsys.readouterr().out
    last, record = contents(broken)
    assert (last["global_step"], record["status"]) == (step - 1, "interrupted")
    run(broken)
    assert_same_run(whole, broken)


def test_the_step_before_a_validation_is_saved_only_if_that_was_long(composed, monkeypatch) -> None:
    """Else each validation would cost a checkpoint more; of the first one nothing is known."""
    config = composed()
    saved: list[int] = []

    original = Checkpointer._save_last

    def spied(self, trainer):
        saved.append(trainer.global_step)
        original(self, trainer)

    monkeypatch.setattr(Checkpointer, "_save_last", spied)
    run(config)
    assert saved == [4, 5, 10, 12]
