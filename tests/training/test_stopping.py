"""Stopping where a step cannot be saved any more: at once, and in a long validation."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import lightning as L
import pytest
import torch

from chela import signals
from chela.config.schema import parse
from chela.records.record import read_record
from chela.training.checkpoints import Checkpointer, step_of
from chela.training.folder import RunFolder
from chela.training.module import TrainingModule
from chela.training.run import Run, run
from chela.training.stopping import Stopping
from tests.training.test_resume import assert_same_run, contents, signal_at

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uninterrupted")


class Killed(BaseException):
    """Ends a run where it is."""


def test_a_signal_that_comes_twice_is_one_request() -> None:
    said: list[str] = []
    ended: list[int] = []
    requests = Stopping(said.append, ended.append)
    with requests:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
    assert requests.received == signal.SIGINT
    assert len(said) == 1
    assert not ended


def test_a_process_forked_to_load_data_leaves_signals_to_its_parent() -> None:
    said: list[str] = []
    with Stopping(said.append, lambda number: None):
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(len(said))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def killed_by_itself(config, said: Path, owner: object, name: str, call: int, number: int) -> int:
    """How a process ends that sends itself a signal twice at a call of a function.

    It is forked, so that it has all imports at once.

    Args:
        config: of its run.
        said: a file for what it prints.
        owner: of the function.
        name: of the function.
        call: the first is 1.
        number: the signal's.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    original, calls = getattr(owner, name), []

    def patched(*arguments, **options):
        calls.append(name)
        if len(calls) == call:
            signal.raise_signal(number)
            signal.raise_signal(number)
        return original(*arguments, **options)

    try:
        signals.SAME_REQUEST = 0.0
        setattr(owner, name, patched)
        sys.stdout = said.open("w")
        run(config)
    finally:
        os._exit(99)  # it should not have come here


@pytest.mark.parametrize(
    ("owner", "name", "call", "number", "saved"),
    [
        (TrainingModule, "training_step", 2, signal.SIGINT, 0),
        (TrainingModule, "training_step", 8, signal.SIGTERM, 6),
        (TrainingModule, "validation_step", 2, signal.SIGUSR1, 8),  # of step 10
        (torch, "save", 3, signal.SIGINT, 4),  # the first best weights, of step 5
        (torch, "save", 4, signal.SIGTERM, 4),  # everything, after them
        (Run, "_test", 1, signal.SIGINT, 12),
        (Run, "_finish", 1, signal.SIGTERM, 12),
    ],
)
def test_a_second_signal_stops_at_once(
    composed, uninterrupted, tmp_path, owner, name, call, number, saved
) -> None:
    every = "trainer.checkpoint_every_steps=2"
    whole, broken = composed(every, f"output_dir={uninterrupted}"), composed(every)
    run(whole)
    said = tmp_path / "said.txt"
    assert killed_by_itself(broken, said, owner, name, call, number) == -number
    what = "the last checkpoint is in" if saved else "nothing was saved yet"
    assert f"stopped by {number.name} at once; {what}" in said.read_text()
    folder = RunFolder(parse(broken))
    assert read_record(folder.path)["status"] == "interrupted"
    if saved:
        last = folder.last if folder.last.exists() else folder.previous
        assert step_of(last) == saved
    run(broken)
    assert_same_run(whole, broken, anew=not saved)


def test_killed_without_warning(composed, uninterrupted, tmp_path) -> None:
    every = "trainer.checkpoint_every_steps=2"
    whole, broken = composed(every, f"output_dir={uninterrupted}"), composed(every)
    run(whole)
    died = killed_by_itself(
        broken, tmp_path / "said", TrainingModule, "training_step", 8, signal.SIGKILL
    )
    assert died == -signal.SIGKILL
    last, record = contents(broken)
    assert (last["global_step"], record["status"]) == (6, "running")
    run(broken)
    assert_same_run(whole, broken)


def test_the_best_weights_are_those_the_checkpoint_knows_of(composed, monkeypatch) -> None:
    """Killed between both files, a run validates once more; on a GPU it may turn out otherwise."""
    accuracies = {5: 0.2, 10: 0.9}
    found, save_last = L.Trainer.callback_metrics, Checkpointer._save_last

    def metrics(trainer):
        accuracy = torch.tensor(accuracies.get(trainer.global_step, 0.0))
        return {**found.fget(trainer), "val/accuracy": accuracy}

    def killed(self, trainer):
        if trainer.global_step == 10:
            raise Killed
        save_last(self, trainer)

    monkeypatch.setattr(L.Trainer, "callback_metrics", property(metrics))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpointer, "_save_last", killed)
        run(composed())
    folder = RunFolder(parse(composed()))
    assert step_of(folder.best) == 10
    accuracies[10] = 0.1
    run(composed())
    assert contents(composed())[1]["best"]["step"] == 5
    assert sorted(each.name for each in folder.checkpoints.iterdir()) == (
        ["best.ckpt", "last.ckpt", "previous.ckpt"]
    )


@pytest.fixture
def saved(monkeypatch) -> list[int]:
    """The steps at which runs save everything."""
    steps: list[int] = []
    original = Checkpointer._save_last

    def spied(self, trainer):
        steps.append(trainer.global_step)
        original(self, trainer)

    monkeypatch.setattr(Checkpointer, "_save_last", spied)
    return steps


def test_several_devices_save_nothing_more(composed, monkeypatch, saved) -> None:
    """Each has a clock of its own; if one saved and another did not, both would wait for ever."""
    monkeypatch.setattr(L.Trainer, "world_size", 2)
    monkeypatch.setattr(Stopping, "grace", 0.0)
    monkeypatch.setattr(Stopping, "asked", lambda *_: False)

    def killed(*_):
        raise Killed

    monkeypatch.setattr(Run, "_test", killed)  # the second device's share would be missing
    with pytest.raises(Killed):
        run(composed())
    assert saved == [5, 10, 12]


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
        patch.setattr(Stopping, "grace", 0.0)  # each validation is a long one
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


def test_the_step_before_a_validation_is_saved_only_if_that_was_long(composed, saved) -> None:
    """Else each validation would cost a checkpoint more; of the first one nothing is known."""
    run(composed())
    assert saved == [4, 5, 10, 12]
