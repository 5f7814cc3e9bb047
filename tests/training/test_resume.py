"""Interrupted and resumed equals uninterrupted, bit for bit, wherever the interruption falls."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from chela.config.schema import parse
from chela.errors import RunError
from chela.records.record import read_record
from chela.training.folder import RunFolder
from chela.training.history import History
from chela.training.module import TrainingModule
from chela.training.run import Run, run
from chela.training.stopping import AT_VALIDATION, OR_BEFORE
from tasks.signals import STOPPING
from tests.conftest import ROOT

pytestmark = pytest.mark.training

SPEED = "tokens_per_second"  # the one column that may differ


def contents(config) -> tuple[dict, dict]:
    """The last checkpoint and the record of a run."""
    folder = RunFolder(parse(config))
    record = read_record(folder.path)
    assert record is not None
    return torch.load(folder.last, weights_only=True), record


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def without_speed(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != SPEED} for row in rows]


def assert_same_run(one, other, anew: bool = False) -> None:
    """``anew``: killed before its first checkpoint a run begins again, as another one in W&B."""
    (last, record), (other_last, other_record) = contents(one), contents(other)
    assert last["global_step"] == other_last["global_step"] == 12
    for part in ["state_dict", "optimizer_states", "lr_schedulers"]:
        assert same(last[part], other_last[part]), part
    for name in ["RandomState", "Checkpointer"]:
        assert same(last["callbacks"][name], other_last["callbacks"][name]), name
    assert without_speed(record["metrics"]) == without_speed(other_record["metrics"])
    for part in ["best", "test", "run_id"]:
        assert record[part] == other_record[part], part
    other_id = other_record["wandb_id"]
    assert (other_id.partition("-attempt")[0] if anew else other_id) == record["wandb_id"]
    assert record["training"]["tokens"] == other_record["training"]["tokens"]


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Do something in the middle of a step, once."""
    original, done = History.on_train_batch_end, []

    def patched(self, trainer, *arguments):
        if trainer.global_step == step and not done:
            done.append(step)
            act()
        original(self, trainer, *arguments)

    monkeypatch.setattr(History, "on_train_batch_end", patched)


def signal_at(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    at_step(monkeypatch, step, lambda: signal.raise_signal(number))


def assert_resumes(
    monkeypatch: pytest.MonkeyPatch, whole: DictConfig, broken: DictConfig, step: int = 7
) -> None:
    """A run that a signal stops in a step goes on to what the uninterrupted one is."""
    run(whole)
    signal_at(monkeypatch, step, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(broken)
    run(broken)
    assert_same_run(whole, broken)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uninterrupted")


# Steps 5 and 10 end in a validation, 4 and 8 in a logged row, 1 is the first, 12 the last.
@pytest.mark.parametrize("step", [1, 3, 4, 5, 10, 11, 12])
def test_a_signal_at_any_step(composed, uninterrupted, monkeypatch, step) -> None:
    number = STOPPING[step % len(STOPPING)]
    whole = composed(f"output_dir={uninterrupted}")
    run(whole)  # once; then it is finished and only shown
    broken = composed()
    signal_at(monkeypatch, step, number)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        run(broken)
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) == before
    _, record = contents(broken)
    assert record["status"] == "interrupted"
    assert record["training"]["steps"] == contents(broken)[0]["global_step"] == step
    assert record["training"]["epochs"] == step * 16 / 200
    assert record["training"]["tokens"] > step * 16 * 5  # trees have 5 symbols at least
    run(broken)
    assert_same_run(whole, broken)
    assert contents(broken)[1]["training"]["sessions"] == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_group(composed, uninterrupted, monkeypatch, number) -> None:
    """As ``timeout`` and batch systems send it: the processes that read data get it, too."""
    workers = "trainer.num_workers=2"
    whole, broken = composed(f"output_dir={uninterrupted}"), composed(workers)
    run(whole)
    told: list[multiprocessing.process.BaseProcess] = []

    def tell() -> None:
        told.extend(multiprocessing.active_children())
        for worker in told:
            os.kill(worker.pid, number)
        told[0].join(0.5)  # time to die in
        signal.raise_signal(number)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        at_step(patch, 3, tell)
        run(broken)
    assert len(told) == 2
    assert stopped.value.code == 128 + number
    assert contents(broken)[0]["global_step"] == 3
    run(broken)
    assert_same_run(whole, broken)


def test_a_killed_reader_of_data_is_told_in_a_sentence(composed, monkeypatch) -> None:
    config = composed("trainer.num_workers=1", "trainer.checkpoint_every_steps=2")

    def kill() -> None:
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()

    with monkeypatch.context() as patch:
        at_step(patch, 3, kill)
        with pytest.raises(RunError, match=r"a process that reads data was killed(.|\n)*the same"):
            run(config)
    assert contents(config)[1]["status"] == "failed"
    run(config)
    assert contents(config)[1]["status"] == "finished"


class Gone(io.StringIO):
    """A pipe whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("stream", [None, Gone(), io.TextIOWrapper(io.BytesIO(), "ascii")])
def test_who_reads_the_output_decides_nothing(composed, monkeypatch, stream) -> None:
    """Ctrl-C ends ``| tee`` first, and then there is nobody to tell that the run saves itself."""
    config = composed("trainer.progress=true")
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        signal_at(patch, 3, signal.SIGINT)
        run(config)
    assert stopped.value.code == 128 + signal.SIGINT
    last, record = contents(config)
    assert (last["global_step"], record["status"]) == (3, "interrupted")


def test_names_and_paths_are_said_as_they_are(composed, monkeypatch, tmp_path, capsys) -> None:
    config = composed("logger.tags=[a,b]", f"output_dir='{tmp_path}/[/b]'")
    monkeypatch.setattr(sys, "argv", ["train.py", "logger.tags=[a,b]"])
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        signal_at(patch, 3, signal.SIGTERM)
        run(config)
    said = capsys.readouterr().out
    assert f"in {tmp_path}/[/b]/" in said
    assert "repeat the command: python train.py 'logger.tags=[a,b]'\n" in said


def test_muon_goes_on_where_it_stood(composed, tmp_path, monkeypatch) -> None:
    whole = composed("optimizer=muon", f"output_dir={tmp_path}/whole")
    broken = composed("optimizer=muon", f"output_dir={tmp_path}/broken")
    assert_resumes(monkeypatch, whole, broken)


def test_another_precision_is_told_and_recorded(composed, monkeypatch, capsys) -> None:
    config = composed()
    with monkeypatch.context() as patch:
        patch.setattr("chela.training.engine._precision", lambda *_: "bf16")  # as on a GPU
        signal_at(patch, 3, signal.SIGTERM)
        with pytest.raises(SystemExit):
            run(config)
    assert contents(config)[1]["precision"] == "bf16"
    capsys.readouterr()
    run(config)
    assert contents(config)[1]["precision"] == "bf16, then float32"
    assert "trainer.precision=auto follows the device" in capsys.readouterr().out


def test_three_interruptions_in_one_run(composed, uninterrupted, monkeypatch) -> None:
    whole, broken = composed(f"output_dir={uninterrupted}"), composed()
    run(whole)
    for step in [2, 5, 9]:
        with monkeypatch.context() as patch:
            signal_at(patch, step, signal.SIGTERM)
            with pytest.raises(SystemExit):
                run(broken)
    run(broken)
    assert_same_run(whole, broken)


def signal_once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, number: int) -> list[str]:
    """Send ourselves a signal at the first call of a method; returns the growing list of calls."""
    original = getattr(owner, name)
    calls: list[str] = []

    def patched(self, *arguments, **options):
        calls.append(name)
        if len(calls) == 1:
            signal.raise_signal(number)
        return original(self, *arguments, **options)

    monkeypatch.setattr(owner, name, patched)
    return calls


def assert_only_the_test_is_left(whole, broken, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_):
        raise AssertionError

    assert contents(broken)[1]["status"] == "interrupted"
    assert contents(broken)[0]["global_step"] == 12
    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", never)
        patch.setattr(TrainingModule, "validation_step", never)
        run(broken)
    assert_same_run(whole, broken)


@pytest.mark.parametrize(
    ("step", "then"),
    [
        (4, "saving at the end of this step"),
        (5, OR_BEFORE),  # nothing is known of the first validation, so step 4 was saved
        (12, AT_VALIDATION),
    ],
)
def test_a_signal_is_told_what_follows(composed, monkeypatch, capsys, step, then) -> None:
    tested = signal_once(monkeypatch, Run, "_test", signal.SIGTERM)
    signal_at(monkeypatch, step, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(composed())
    shown = " ".join(capsys.readouterr().out.split())  # in lines of 100 characters
    assert f"SIGTERM: {then}; send it again" in shown
    assert f"stopped by SIGTERM at step {step}" in shown
    assert not tested


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_test(composed, uninterrupted, monkeypatch, capsys, number) -> None:
    several = "trainer.eval_batch_size=10"
    whole, broken = composed(several, f"output_dir={uninterrupted}"), composed(several)
    run(whole)
    capsys.readouterr()
    before = [signal.getsignal(each) for each in STOPPING]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        batches = signal_once(patch, TrainingModule, "test_step", number)
        run(broken)
    assert stopped.value.code == 128 + number
    assert len(batches) == 1
    assert [signal.getsignal(each) for each in STOPPING] == before
    shown = capsys.readouterr().out
    assert f"{number.name}: stopping before the test is over" in shown
    assert f"stopped by {number.name} during the test" in shown
    assert "to go on, repeat the command" in shown
    assert_only_the_test_is_left(whole, broken, monkeypatch)


def test_a_signal_between_training_and_test(composed, uninterrupted, monkeypatch, capsys) -> None:
    whole, broken = composed(f"output_dir={uninterrupted}"), composed()
    run(whole)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        signal_once(patch, Run, "_test", signal.SIGTERM)
        run(broken)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM before the test" in capsys.readouterr().out
    assert_only_the_test_is_left(whole, broken, monkeypatch)


def test_a_signal_after_the_test_is_not_lost(composed, monkeypatch) -> None:
    """The run is finished by then, but the rest of a sweep is not to begin."""
    signal_once(monkeypatch, Run, "_finish", signal.SIGTERM)
    config = composed()
    with pytest.raises(SystemExit) as stopped:
        run(config)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert contents(config)[1]["status"] == "finished"


def test_resume_from_a_named_checkpoint(composed, uninterrupted, tmp_path, monkeypatch) -> None:
    """A checkpoint carried to another output folder is gone on from, under the same W&B id."""
    whole, broken = composed(f"output_dir={uninterrupted}"), composed()
    run(whole)
    with monkeypatch.context() as patch:
        signal_at(patch, 6, signal.SIGINT)
        with pytest.raises(SystemExit):
            run(broken)
    last = RunFolder(parse(broken)).last
    elsewhere = composed(f"resume={last}", f"output_dir={tmp_path / 'elsewhere'}")
    with monkeypatch.context() as patch:
        signal_at(patch, 9, signal.SIGINT)
        with pytest.raises(SystemExit):
            run(elsewhere)
    assert (
        RunFolder(parse(elsewhere)).start().step == 9
    )  # the same command goes on, as a requeued job
    run(elsewhere)
    assert_same_run(whole, elsewhere)
    assert RunFolder(parse(elsewhere)).start().finished


def test_a_resume_says_where_it_goes_on(composed, interrupted, capsys) -> None:
    capsys.readouterr()
    run(composed())
    assert f"resuming   at step 6 of 12 from {interrupted.last}\n" in capsys.readouterr().out


@pytest.fixture
def interrupted(composed, monkeypatch) -> RunFolder:
    """A run that was stopped at step 6, after the validation of step 5."""
    broken = composed()
    with monkeypatch.context() as patch:
        signal_at(patch, 6, signal.SIGINT)
        with pytest.raises(SystemExit):
            run(broken)
    return RunFolder(parse(broken))


def test_a_checkpoint_without_its_best_weights_is_refused_at_once(
    composed, interrupted, tmp_path
) -> None:
    alone = tmp_path / "last.ckpt"
    alone.write_bytes(interrupted.last.read_bytes())
    with pytest.raises(RunError, match=r"best validation at step 5(.|\n)*copy best\.ckpt too"):
        run(composed(f"resume={alone}", f"output_dir={tmp_path / 'elsewhere'}"))


def test_a_checkpoint_kept_in_the_runs_own_folder(composed, uninterrupted, interrupted) -> None:
    """What is there is moved aside first, the named checkpoint with it."""
    whole = composed(f"output_dir={uninterrupted}")
    run(whole)
    kept = interrupted.path / "kept"
    kept.mkdir()
    for file in (interrupted.last, interrupted.best):
        (kept / file.name).write_bytes(file.read_bytes())
    again = composed(f"resume={kept / 'last.ckpt'}")
    folder = RunFolder(parse(again))
    start = folder.start()
    assert (start.checkpoint, start.step) == (interrupted.last, 6)
    assert start == folder.start(leads=False)  # another process, which begins later
    assert start == interrupted.start()  # the same command, if the run is killed now
    run(composed())
    assert_same_run(whole, again)


def test_killed_at_random_moments_through_the_command(tmp_path) -> None:
    """Wherever a signal falls: in a step, a validation or while a checkpoint is written."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.kills", str(tmp_path), "--tee", "4", "--workers", "3"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("7 signals: ")
