"""What torchrun or srun has started is the run; two nodes at work are in tests/cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from unittest.mock import Mock

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from chela.bench import throughput
from chela.config.schema import parse
from chela.errors import ConfigError, InUse, OwnError, RunError
from chela.launch import cli
from chela.launch.cli import plain_errors
from chela.launch.search import Search
from chela.launch.space import SearchConfig
from chela.launch.sweep import SweepCallback, _keeps_the_cell
from chela.launch.turns import FOLDER
from chela.records.state import lease_of
from chela.training.agreement import agreed, decided, refuse_others
from chela.training.distributed import (
    LEADER,
    Companions,
    as_started,
    environment,
    is_leader,
    is_started_outside,
)
from chela.training.ending import Ending
from chela.training.folder import RunFolder
from chela.training.memory import Estimate, Need
from chela.training.run import run
from chela.training.stopping import Interrupted
from tasks.errors import DataError
from tasks.lease import hold
from tasks.screen import Screen

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2", "RANK": "2"}
TORCHRUN |= {"LOCAL_WORLD_SIZE": "2"}
SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "2"}
SRUN |= {"SLURM_STEP_TASKS_PER_NODE": "2(x2)"}
# of a job's script, and of one task by srun: one process, whatever the job has
SCRIPT = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
ONE = {**SCRIPT, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}


def started_by(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in {**TORCHRUN, **SRUN, "LOCAL_RANK": "", "SLURM_LOCALID": ""}:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
def test_nodes_and_devices_are_those_that_were_started(
    variables: dict[str, str], composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = parse(composed("trainer.batch_size=16"))
    started_by(monkeypatch, variables)
    found = as_started(plain)
    assert (found.trainer.num_nodes, found.trainer.devices, found.trainer.processes) == (2, 2, 4)
    assert found.identity == plain.identity  # the same run as on one device
    assert is_started_outside()
    asked = parse(composed("trainer.devices=2", "trainer.num_nodes=2"))
    assert as_started(asked).trainer == found.trainer
    for key in ("devices", "num_nodes"):
        with pytest.raises(RunError, match=rf"trainer.{key}=3, but \w+ has started"):
            as_started(parse(composed(f"trainer.{key}=3", "trainer.batch_size=18")))


@pytest.mark.parametrize(
    "variables",
    [
        {**TORCHRUN, "WORLD_SIZE": "5"},
        {**TORCHRUN, "LOCAL_WORLD_SIZE": "3"},
        {**TORCHRUN, "LOCAL_WORLD_SIZE": "1"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "5", "SLURM_STEP_TASKS_PER_NODE": "3,2"},
        {**SRUN, "SLURM_STEP_TASKS_PER_NODE": "3,1"},
    ],
)
def test_nodes_with_more_processes_than_others_are_refused(
    variables: dict[str, str], composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the numbers make a whole one on average, too."""
    started_by(monkeypatch, variables)
    with pytest.raises(RunError, match=r"processes on 2 nodes: not as many on each(.|\n)*per-node"):
        as_started(parse(composed()))


@pytest.mark.parametrize("variables", [{}, SCRIPT, ONE], ids=["nothing", "a script", "one task"])
def test_one_process_starts_the_others_itself(
    variables: dict[str, str], composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    started_by(monkeypatch, variables)
    assert isinstance(environment(), LightningEnvironment)
    assert not is_started_outside()
    config = parse(composed("trainer.devices=2"))
    assert as_started(config) is config
    with pytest.raises(RunError, match=r"torchrun or srun(.|\n)*docs/cluster.md"):
        as_started(parse(composed("trainer.num_nodes=2")))


TOO_MUCH = Estimate((Need("trainer.batch_size", 16, 0, 1e9),), 40, 1e6)


def connect(monkeypatch: pytest.MonkeyPatch, broadcast: Callable[..., None]) -> None:
    monkeypatch.setattr("chela.training.agreement._init_dist_connection", lambda *_, **__: None)
    monkeypatch.setattr("chela.training.agreement._patient", lambda: None)
    monkeypatch.setattr("torch.distributed.broadcast_object_list", broadcast)
    monkeypatch.setattr("torch.distributed.all_gather_object", lambda *_, **__: None)


@pytest.mark.parametrize(
    ("words", "error", "status"),
    [([], InUse, 75), (["resume=nowhere"], RunError, 1), (["seed=3"], RunError, 1)],
    ids=["in use", "no checkpoint", "too little memory"],
)
def test_what_the_first_process_cannot_begin_ends_all_and_it_alone_says_why(
    words: list[str], error: type[RunError], status: int, composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[object]] = []

    def broadcast(box: list[object], group: object) -> None:
        if is_leader():
            sent.append(list(box))
        else:
            box[:] = sent.pop(0)

    config = composed(*words)
    monkeypatch.setattr("chela.training.checks.estimate", lambda *_: TOO_MUCH)
    folder = RunFolder(parse(config)).path
    started_by(monkeypatch, {**TORCHRUN, "WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"})
    connect(monkeypatch, broadcast)
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    with hold(lease_of(folder)) if error is InUse else nullcontext(), pytest.raises(error):
        run(config)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with pytest.raises(SystemExit) as ended:
        run(config)
    assert ended.value.code == status
    assert not sent  # the others were told all that was decided


@pytest.mark.parametrize(
    ("rank", "local_rank", "raised"), [(0, 0, RunError), (2, 0, RunError), (1, 1, SystemExit)]
)
def test_a_process_that_ends_before_the_run_begins_is_missed_by_one_of_each_node(
    rank: int, local_rank: int, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not prepare its node's data, for example."""

    def broadcast(box: list[object], group: object) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")

    started_by(monkeypatch, {**TORCHRUN, "RANK": str(rank), "LOCAL_RANK": str(local_rank)})
    connect(monkeypatch, broadcast)
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    words = "another of its processes has ended" if raised is RunError else "1"
    with pytest.raises(raised, match=words):
        agreed(lambda: None, torch.device("cpu"))


@pytest.mark.parametrize(("local_rank", "raised"), [(0, RunError), (1, SystemExit)])
@pytest.mark.parametrize(
    ("word", "data", "said"),
    [
        ("optimizer.lr=2", "f1", "optimizer.lr is 0.003 in the first one, 2.0 in process 1"),
        ("trainer.log_every_steps=7", "f1", "trainer.log_every_steps is 4 .* 7 in"),
        ("data_dir=elsewhere", "f2", "the data's fingerprint is f1 in the first one, f2 in"),
        ("data_dir=elsewhere", "f1", ""),
    ],
)
def test_nodes_with_another_command_or_other_data_are_not_one_run(
    word: str,
    data: str,
    said: str,
    local_rank: int,
    raised: type[BaseException],
    composed,
    monkeypatch,
) -> None:
    first: list[object] = []

    def gather(found: list[object], facts: object, group: object) -> None:
        found[:] = [*first, facts]
        first[:] = [facts]

    started_by(monkeypatch, {**TORCHRUN, "LOCAL_RANK": str(local_rank)})
    connect(monkeypatch, lambda *_, **__: None)
    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    refuse_others(decided(parse(composed())) | {"the data's fingerprint": "f1"})
    words = said if raised is RunError else "1"
    with pytest.raises(raised, match=words) if said else nullcontext():
        refuse_others(decided(parse(composed(word))) | {"the data's fingerprint": data})


@pytest.mark.parametrize("error", [ConfigError("what"), DataError("what"), OwnError("what")])
@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        (SCRIPT, True),
        ({**TORCHRUN, "LOCAL_RANK": "0"}, True),
        ({**TORCHRUN, "LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, False),
        ({**SRUN, "SLURM_LOCALID": "1"}, False),
        ({"LOCAL_RANK": "1"}, False),
    ],
)
@pytest.mark.parametrize("ends", [True, False])
def test_what_all_processes_meet_the_first_of_each_node_says(
    variables: dict[str, str], first: bool, ends: bool, error: Exception, monkeypatch, capsys
) -> None:
    """Torchrun and srun end all with the one that ends first: so the others wait before they do.

    Where the first one does not end, it has not met it.
    """
    said: list[str] = []
    monkeypatch.setattr(cli, "sleep", lambda _: said.append(capsys.readouterr().err))
    monkeypatch.setattr(cli, "PATIENCE", 0.01)
    monkeypatch.setattr(cli, "PARENT", 0 if ends else os.getppid())
    started_by(monkeypatch, variables)
    with pytest.raises(SystemExit) as ended, plain_errors():
        raise error
    assert ended.value.code == 1
    at_once = first or isinstance(error, OwnError)
    assert bool(said) == (not at_once and not ends)
    assert not any(said)
    assert capsys.readouterr().err == ("error: what\n" if at_once or not ends else "")


def test_where_the_first_process_was_killed_the_next_one_says_it(
    composed, monkeypatch, capsys
) -> None:
    started_by(monkeypatch, {"LOCAL_RANK": "1"})
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    ending = Ending(RunFolder(parse(composed())), Screen(quiet=True), leads=False)
    monkeypatch.setattr(cli, "PARENT", 0)  # it is not any more
    monkeypatch.setattr(ending.companions, "_parent", 0)
    with pytest.raises(SystemExit) as ended, plain_errors(), ending.recorded():
        raise RuntimeError("gloo: connection closed by peer")
    assert ended.value.code == 1
    assert "cannot go on: its first process was killed" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
def test_a_signal_to_stop_that_another_process_was_not_ready_for_is_one(
    number: signal.Signals, composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm sends it to all of them; the first one waits for the other, and cannot note it."""
    recorded: list[str] = []
    ending = Ending(RunFolder(parse(composed())), Screen(quiet=True), leads=True)
    monkeypatch.setattr(ending, "record", lambda status, _: recorded.append(status))
    process = Mock(**{"poll.return_value": -number})
    monkeypatch.setattr(ending.companions, "_started", [process])
    stops = number == signal.SIGUSR1
    with pytest.raises(SystemExit if stops else OwnError) as ended, ending.recorded():
        raise RuntimeError("gloo: connection closed by peer")
    assert recorded == ["interrupted" if stops else "failed"]
    if stops:
        assert ended.value.code == 138


@pytest.mark.parametrize("leader", [os.getppid(), 2**22 + 1])  # the kernel has no larger number
def test_a_process_whose_first_one_was_killed_before_it_had_begun_ends(
    leader: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for half an hour for one that is not there."""
    started_by(monkeypatch, {"LOCAL_RANK": "1", LEADER: str(leader)})
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    what = Companions(lambda _: 1)._look()
    assert what is None if leader == os.getppid() else "its first process was killed" in str(what)


@pytest.mark.parametrize(
    ("variables", "leads", "after"),
    [
        (SRUN, False, signal.SIG_IGN),
        (SRUN, True, signal.SIG_DFL),
        ({"LOCAL_RANK": "1"}, False, signal.SIG_DFL),
    ],
)
def test_a_process_that_has_done_its_part_leaves_the_status_to_the_first_one(
    variables: dict[str, str], leads: bool, after: object, composed, monkeypatch
) -> None:
    """Srun sends SIGTERM to those that are still ending, and has the worst status of all."""
    started_by(monkeypatch, variables)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        ending = Ending(RunFolder(parse(composed())), Screen(quiet=True), leads)
        with pytest.raises(SystemExit) as ended, ending.stoppable(), ending.recorded():
            raise Interrupted(signal.SIGUSR1, "at step 7")
        assert ended.value.code == (128 + signal.SIGUSR1 if leads else 0)
        assert signal.getsignal(signal.SIGTERM) == after
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
def test_a_sweep_is_not_one_run(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    started_by(monkeypatch, variables)
    with pytest.raises(BaseException) as refused:  # carried past Hydra
        SweepCallback().on_multirun_start(OmegaConf.create())
    assert isinstance(refused.value.__cause__, ConfigError)
    assert "-m in 4 processes that are one run" in str(refused.value)
    with pytest.raises(ConfigError, match="a search in 4 processes that are one run"):
        Search(SearchConfig({}, 1, 0, 0), [])


def test_a_benchmarks_tokens_are_those_of_all_nodes(
    composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "measure", lambda config, spec, engine, data, *_, **__: data)
    data = throughput.measure_at_length(
        parse(composed("trainer.devices=2", "trainer.num_nodes=2", "trainer.augment=true")),
        length=8,
        tokens=64,
        steps=1,
    )
    assert data.batch.values.shape == (2, 8)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("variables", "keeps"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),  # the first of the second node
        ({"SLURM_PROCID": "2"}, False),
        ({"SLURM_PROCID": "0"}, True),
    ],
)
def test_the_first_of_all_processes_keeps_what_becomes_of_a_cell(
    variables: dict[str, str], keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started_by(monkeypatch, variables)
    monkeypatch.setenv(FOLDER, "x")
    assert _keeps_the_cell() == keeps
