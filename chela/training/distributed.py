"""The few things that the processes of one run have to agree on, if there are several."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import subprocess_script
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.optim import Optimizer

from chela.config.schema import RunConfig
from chela.errors import RunError
from chela.layers.processes import processes
from chela.layers.sequence import share_sequences
from tasks.signals import STOPPING

PAUSE = 0.5  # seconds between two looks at the other processes
WHY = "perhaps for want of memory"
PATIENCE = 5.0  # seconds that a process has to notice by itself that another one is gone
LEADER = "CHELA_LEADER"  # in the environment of those that the first process starts: its number
MISSED = timedelta(minutes=10)  # after which another machine that fell silent counts as gone


def environment() -> ClusterEnvironment:
    """What has started the processes of the run: torchrun, srun, or the first of them."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    # in a job's script, without srun, there is one process whatever Slurm gave the job
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return SLURMEnvironment(auto_requeue=False)  # what saves is the run's own
    return LightningEnvironment()


def is_started_outside() -> bool:
    """Whether torchrun or srun has started this process and the others, at the same time."""
    return not isinstance(environment(), LightningEnvironment)


def as_started(config: RunConfig) -> RunConfig:
    """The configuration with the nodes and devices that torchrun or srun has started it on.

    Raises:
        RunError: others were asked for, or nodes have different numbers of processes.
    """
    trainer, found = config.trainer, environment()
    if isinstance(found, TorchElasticEnvironment):
        by, names = "torchrun", ("WORLD_SIZE", "GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE")
    elif isinstance(found, SLURMEnvironment):
        by, names = (
            "srun",
            ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_STEP_TASKS_PER_NODE"),
        )
    elif trainer.num_nodes > 1:
        raise RunError(
            f"trainer.num_nodes={trainer.num_nodes}: the processes of several nodes are started by "
            "torchrun or srun.\n  try: docs/cluster.md has the commands"
        )
    else:
        return config
    every, nodes = (int(os.environ.get(name, "1")) for name in names[:2])
    each = every // nodes
    told = os.environ.get(names[2])  # by torchrun of this node, by Slurm of all: "2(x4)"
    if each * nodes < every or told not in (None, f"{each}", f"{each}(x{nodes})"):
        raise RunError(
            f"{by} has started {every} processes on {nodes} nodes: not as many on each.\n"
            "  try: --nproc-per-node of torchrun, or --ntasks-per-node of Slurm, the same on all"
        )
    for key, asked, has in [
        ("devices", trainer.devices, each),
        ("num_nodes", trainer.num_nodes, nodes),
    ]:
        if asked not in (1, has):
            raise RunError(
                f"trainer.{key}={asked}, but {by} has started processes for {has}.\n"
                f"  try: without trainer.{key}, or start others"
            )
    return replace(config, trainer=replace(trainer, devices=each, num_nodes=nodes))


def is_of_another(error: BaseException) -> bool:
    """Whether this is what a process gets that waits for one that is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def is_leader() -> bool:
    """Whether this process writes files and prints: rank 0."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes; a copy of itself if there is one."""
    value = value.clone()
    if processes() > 1:
        dist.all_reduce(value)
    return value


def refuse_apart(model: nn.Module) -> None:
    """See that all processes have the same weights: the sums of their bits are compared.

    Raises:
        RunError: in all processes, one has others.
    """
    if processes() == 1:
        return
    bits = [each.detach().flatten().view(torch.int32).sum() for each in model.parameters()]
    found = bits[0].new_zeros(processes())
    found[dist.get_rank()] = torch.stack(bits).sum()
    sums = total(found).tolist()
    usual = max(sums, key=sums.count)  # of two different ones the first process's
    if apart := [rank for rank, each in enumerate(sums) if each != usual]:
        raise RunError(
            f"the run has diverged: the weights in process {', '.join(map(str, apart))} are not "
            f"those in process {sums.index(usual)}. All make the same updates, so a device "
            "computes wrongly, or they are of several kinds.\n"
            "  try: chela doctor on each of them; then resume=false, as what is saved may be wrong"
        )


def add_up_gradients(model: nn.Module) -> None:
    """Let each gradient be the sum of all processes', by one all-reduce of one flat tensor."""
    if processes() == 1:
        return
    learning = [each for each in model.parameters() if each.grad is not None]
    flat = torch.cat([each.grad.flatten() for each in learning if each.grad is not None])
    dist.all_reduce(flat)
    parts = flat.split([each.numel() for each in learning])
    for parameter, part in zip(learning, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def skip_together(optimizer: Optimizer, *_: Any) -> None:
    """Let all processes leave out a step that one does: where its ``found_inf`` is 1, all have 1.

    To be called before a step changes anything, as the optimizer's hook is. Their gradients are
    the same, but one that computes wrongly may find another norm of them, or another update.
    """
    found: Tensor | None = getattr(optimizer, "found_inf", None)
    if found is not None and processes() > 1:
        dist.all_reduce(found, dist.ReduceOp.MAX)


class OneStep(DDPStrategy):
    """Processes of which each computes its part of every step; the step itself adds them up.

    The model is not wrapped: PyTorch's wrapper adds up gradients on streams of its own, which a
    CUDA graph cannot record, and overlaps what takes a hundredth of a step.

    Args:
        sequence_devices: processes in a row that hold a sequence together.
    """

    def __init__(self, sequence_devices: int = 1) -> None:
        super().__init__()
        self._sequence_devices = sequence_devices

    def setup_distributed(self) -> None:
        """Another group beside: what hosts agree on does not wait for their GPUs."""
        super().setup_distributed()
        share_sequences(self._sequence_devices, MISSED)
        self._hosts = dist.new_group(backend="gloo", timeout=MISSED)

    def configure_ddp(self) -> None:
        """All begin with the weights of the first one."""
        assert self.lightning_module is not None
        model = self.lightning_module.model
        assert isinstance(model, nn.Module)
        for value in model.state_dict().values():
            dist.broadcast(value, 0)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Whether all processes, or any, have decided so; their hosts alone wait."""
        votes = torch.tensor(int(decision))
        dist.all_reduce(votes, group=self._hosts)
        return bool(votes == processes() if all else votes > 0)


class Companions:
    """The other processes of a run with several devices: what is said and done if one is gone.

    Waiting for it, the others get an error of their library's, or wait for ever. Lightning would
    then kill them all without a word.

    Args:
        alone: called where the process waits for ever, with what became of the other one; returns
            the status to end with.
    """

    def __init__(self, alone: Callable[[str], int]) -> None:
        self._alone = alone
        self._outside = is_started_outside()
        ours = not self._outside and not is_leader()
        # it may be gone by now, since imports take seconds
        self._parent = int(os.environ.get(LEADER, os.getppid())) if ours else os.getppid()
        self._started: Sequence[subprocess.Popen[bytes]] = ()
        self._over = threading.Event()

    @property
    def is_heir(self) -> bool:
        """Whether the first process is gone, or on another node: then this one says what is."""
        if self._outside:  # one of each node
            return environment().local_rank() == 0
        return os.getppid() != self._parent and os.environ.get("LOCAL_RANK") == "1"

    @property
    def asked(self) -> int | None:
        """The signal to stop that one of them died by, which was not ready for it; else None."""
        died_by = (-(process.poll() or 0) for process in self._started)
        return next((number for number in died_by if number in STOPPING), None)

    def watch(self) -> None:
        """From now on; to be called before the others are started."""
        if is_leader() and not self._outside:
            os.environ[LEADER] = str(os.getpid())
            subprocess_script._launch_process_observer = self._take_over  # type: ignore[assignment, attr-defined]
        else:
            self._begin()

    def stop(self) -> None:
        """What becomes of them does not matter any more."""
        self._over.set()

    def lost(self, error: BaseException) -> str | None:
        """What became of another process, if that is why ``error`` was raised; else None."""
        if "DataLoader worker" in str(error):
            return f"a process that reads data was killed, {WHY}"
        if not is_of_another(error):
            return None
        if self._outside:
            self.stop()
            return f"another of its processes is gone, of this node or another one, {WHY}"
        end = time.monotonic() + PATIENCE
        while (what := self._look()) is None and time.monotonic() < end:
            time.sleep(PAUSE / 10)
        self.stop()
        return what

    def kill(self) -> None:
        """End the processes that this one has started."""
        for process in self._started:
            process.kill()

    def _take_over(self, started: Sequence[subprocess.Popen[bytes]]) -> None:
        self._started = started
        self._begin()

    def _begin(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while (what := self._look()) is None:
            if self._over.wait(PAUSE):
                return
        if not self._over.wait(PATIENCE):
            status = self._alone(what)
            self.kill()
            os._exit(status)

    def _look(self) -> str | None:
        """What became of a process that is gone; None: all are there, or at their end."""
        for rank, process in enumerate(self._started, 1):
            status = process.poll()
            if status is not None and status < 0:
                why = f", {WHY}" if -status == signal.SIGKILL else ""
                return f"its process {rank} was killed by {signal.Signals(-status).name}{why}"
            if status:
                return f"its process {rank} ended with status {status}, as it says above"
        if self._outside and os.getppid() != self._parent:
            return "what had started it was killed"
        if not is_leader() and os.getppid() != self._parent:
            return f"its first process was killed, {WHY}"
        return None
