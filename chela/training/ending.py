"""What a run leaves behind that does not reach its end: its record, words, an exit status.

Who asks it to stop, and when that is served, stands in ``chela.training.stopping``.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import lightning as L

from chela.config.command import command_line, typed
from chela.disk import disk_error, explain_disk
from chela.errors import OwnError
from chela.records.record import mark_failed, read_record, write_record
from chela.signals import exit_status
from chela.training.distributed import Companions, is_started_outside
from chela.training.folder import RunFolder
from chela.training.pruning import Pruned
from chela.training.stopping import Interrupted, Stopping
from tasks.errors import DataError
from tasks.screen import Screen


class Ending:
    """The ends of one run, each in one place; with several devices each process has its own.

    Args:
        folder: of the run.
        console: of the process that ``leads``.
        leads: whether this one writes the record and prints.

    Attributes:
        so_far: what the record has to say by now.
        trainer: once there is one; it has started the other processes.
    """

    def __init__(self, folder: RunFolder, console: Screen, leads: bool) -> None:
        self.folder, self.console, self.leads = folder, console, leads
        self.stopping = Stopping(console.say, self._at_once)
        self.companions = Companions(self._alone)
        self.so_far: Callable[[], dict[str, Any]] = dict
        self.trainer: L.Trainer | None = None

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Around all that a request to stop, once received, lets come to its end.

        Srun ends what is left when one process has ended, and has the worst status of all: of one
        that takes its time to end it would be SIGTERM's, and the job's script would not requeue it.
        """
        try:
            with self.stopping:
                yield
        finally:
            if not self.leads and is_started_outside():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def record(self, status: str, content: dict[str, Any]) -> None:
        """Write the record, if this process does."""
        if self.leads:
            write_record(self.folder.path, {"status": status, **content})

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Around training and test: what ends them early stands in the record.

        Raises:
            SystemExit: a signal did.
            OwnError: another process of the run is gone.
        """
        try:
            yield
        except Interrupted as interruption:
            self.record("interrupted", self.so_far())
            self._say_how_to_go_on(str(interruption), interruption.saved)
            raise SystemExit(self._status(interruption.signal_number)) from None
        except Pruned as pruned:
            self.record("interrupted", {**self.so_far(), "pruned": str(pruned)})
            raise
        except BaseException as error:
            if (what := self.companions.lost(error)) is not None:
                end = self._left_alone(what)
                self.companions.kill()
                raise end from error
            self.record("failed", {"error": f"{type(error).__name__}: {error}", **self.so_far()})
            raise
        finally:
            self.companions.stop()

    def leave(self) -> None:
        """Stop when the run is finished: too late for it, not for the rest of a sweep.

        Raises:
            SystemExit: a signal came.
        """
        if self.stopping.received is not None:
            raise SystemExit(self._status(self.stopping.received))

    def _status(self, signal_number: int) -> int:
        # Lightning kills the leading process, which may still upload, when another one fails
        return exit_status(signal_number) if self.leads else 0

    def _at_once(self, number: int) -> None:
        """In a signal's handler, before the process ends by it: what is computed now is lost."""
        if self.leads:
            with suppress(OSError):  # a full disk: the lease tells that the run has ended
                record = read_record(self.folder.path)
                if record is not None and record["status"] == "running":
                    write_record(self.folder.path, {**record, "status": "interrupted"})
            with suppress(OSError, RuntimeError):  # it may have come in the middle of a line
                self._say_how_to_go_on(f"{signal.Signals(number).name} at once", saved=False)
        if self.trainer is not None and self.trainer.strategy.launcher is not None:
            self.trainer.strategy.launcher.kill(signal.SIGKILL)

    def _left_alone(self, what: str) -> OwnError | SystemExit:
        """What to raise when another process is gone: one of those that are left says it."""
        # a group's signal does not interrupt this one where it waits for the others
        received = self.stopping.received or self.companions.asked
        if self.leads and received is not None:  # it came before the other one was ready
            self.record("interrupted", self.so_far())
            self._say_how_to_go_on(f"{signal.Signals(received).name}; {what}", saved=False)
            return SystemExit(self._status(received))
        message = (
            f"{self.folder.config.run_id} cannot go on: {what}; "
            f"{self._whats_there()}.\n  try: the same command goes on from there"
        )
        self.record("failed", {"error": message, **self.so_far()})
        return OwnError(message) if self.leads or self.companions.is_heir else SystemExit(1)

    def _alone(self, what: str) -> int:
        """In a thread: this process waits for ever for another one."""
        end = self._left_alone(what)
        if isinstance(end, SystemExit):
            return int(end.code or 0)
        Screen(stderr=True).tell(f"error: {end}")
        return 1

    def _whats_there(self) -> str:
        if self.folder.last.exists() or self.folder.previous.exists():
            return f"the last checkpoint is in {self.folder.checkpoints}"
        return "nothing was saved yet"

    def _say_how_to_go_on(self, stopped_by: str, saved: bool) -> None:
        # resume=false would start anew, and resume=<path> go back to that checkpoint
        again = [each for each in sys.argv if not each.startswith("resume=")]
        what = f"everything is in {self.folder.last}" if saved else self._whats_there()
        command = typed(command_line(again))
        self.console.say(
            f"stopped by {stopped_by}; {what}\nto go on, repeat the command: {command}"
        )


@contextmanager
def disk_errors(folder: RunFolder, leads: bool) -> Iterator[None]:
    """A disk that takes no more, at whatever moment, is one message, with what is saved.

    Raises:
        OwnError: it names file, room and the last whole checkpoint; the record says "failed".
    """
    try:
        yield
    except Exception as error:
        disk = disk_error(error)
        if disk is None or isinstance(error, DataError):  # which speaks of the data's disk
            raise
        message = explain_disk(disk)
        if leads:
            mark_failed(folder.path, message)
        raise OwnError(f"{message}\n  last whole checkpoint: {folder.whole()}") from error
