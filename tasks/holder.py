"""The process that holds a lease: of this machine or another one, and whether it still lives."""

from __future__ import annotations

import os
import secrets
import socket
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

RENEW = 10.0  # seconds between two signs of life
SILENT = 3 * RENEW  # after which who waits may hope
LAPSE = 120.0  # network disks show what others wrote after up to a minute

# How batch systems number a job for its processes: Slurm, PBS, LSF, Grid Engine, Flux, OAR.
BATCH_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "FLUX_JOB_ID", "OAR_JOB_ID")


@dataclass(frozen=True)
class Holder:
    """The process that a lease is of.

    Args:
        host: the name of its machine.
        machine: what numbers its process: that boot of a kernel, that container; "" if unknown.
        pid: its number there.
        started: when, in the kernel's own time; "" if unknown.
        job: the batch system's number of its job; None outside one.
        restarts: how often that job was started before.
        token: of this lease alone.
        renewed: seconds since the epoch, by this machine's clock.
    """

    host: str
    machine: str = ""
    pid: int = 0
    started: str = ""
    job: str | None = None
    restarts: int = 0
    token: str = ""
    renewed: float = 0.0

    def lives(self, now: float, lapse: float = LAPSE) -> bool:
        """Whether it still holds what it took.

        Args:
            now: seconds since the epoch.
            lapse: seconds without a sign of life after which it does not, on another machine.
        """
        if self.machine and self.machine == _machine() and not _is_hidden(self.pid):
            return _started(self.pid) == self.started
        # the batch system has started that job again, as this one, maybe elsewhere
        again = self.job is not None and self.job == batch_job() and self.restarts < _restarts()
        return not again and now - self.renewed < lapse

    @property
    def is_silent(self) -> bool:
        """Whether it missed signs of life, so that its lease may be about to lapse.

        Never on this machine, where one can look: a process that is stopped holds it still.
        """
        return self.machine != _machine() and time.time() - self.renewed > SILENT

    def describe(self) -> str:
        """``"process 12 on node3, job 77"``."""
        job = "" if self.job is None else f", job {self.job}"
        return f"process {self.pid} on {self.host}{job}"


def batch_job() -> str | None:
    """The batch system's number of the job that this process is a part of; None outside one."""
    return next((os.environ[name] for name in BATCH_JOBS if os.environ.get(name)), None)


def this_process() -> Holder:
    """The holder of a new lease of this process."""
    pid = os.getpid()
    place = (socket.gethostname(), _machine(), pid, _started(pid) or "")
    return Holder(*place, batch_job(), _restarts(), secrets.token_hex(8))


def _restarts() -> int:
    count = os.environ.get("SLURM_RESTART_COUNT", "0")
    return int(count) if count.isdecimal() else 0


@cache
def _machine() -> str:
    """What makes a process's number one process: the kernel's boot and the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - it is no path
    except OSError:  # no Linux
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process of this machine was started; None: there is none, or it is dead."""
    try:
        # its name, in parentheses, may hold anything; after it the state, and 19 further the start
        behind = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if behind[0] in "ZX" else behind[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def _is_hidden(pid: int) -> bool:
    """Whether it is a process of another user, which /proc need not show (hidepid)."""
    if Path(f"/proc/{pid}").exists():
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return False
