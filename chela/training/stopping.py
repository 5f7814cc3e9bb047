"""Stopping a run: what a signal does, and what its sender is told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from chela.signals import StoppingSignals

AT_STEP = "saving at the end of this step"
AT_VALIDATION = "saving after the validation that ends this step"
GRACE = 10.0  # seconds for that; a batch system kills what goes on for 30
OR_BEFORE = f"{AT_VALIDATION}; if it takes over {GRACE:.0f} s, stopping as of the step before"
AT_TEST = "stopping before the test is over; what was trained is saved"
AFTER_TEST = "stopping when the test is over and recorded"


class Interrupted(BaseException):
    """The run was asked to stop, and does. Not an ``Exception``: a sweep stops too.

    Args:
        signal_number: what asked it.
        where: ``at step 7``, ``during the test``.
        saved: whether all that was computed is saved; else it is as of the last checkpoint.
    """

    def __init__(self, signal_number: int, where: str, saved: bool = True) -> None:
        super().__init__(f"{signal.Signals(signal_number).name} {where}")
        self.signal_number, self.saved = signal_number, saved


class StopSignals(StoppingSignals):
    """Turns Ctrl-C, SIGTERM and SIGUSR1 into a request that is served where the run can go on.

    A signal may come in the middle of an update of the weights, where nothing can be saved that
    could be resumed exactly. The first one is therefore only noted. A second one ends the process,
    with the checkpoint before as the last: no exception is raised in the middle of what it does,
    which might be a file's writing or another's clean-up, and every file is whole or absent. What
    comes within ``signals.SAME_REQUEST`` is the same one: a sweep passes on what it gets, too.

    Args:
        notify: told what the first one brings about.
        at_once: called with a second one's number before the process ends.

    Attributes:
        received: the first one, or None.
        then: what follows a signal that comes now, for who sent it.
    """

    def __init__(self, notify: Callable[[str], None], at_once: Callable[[int], None]) -> None:
        super().__init__(self._serve)
        self.received: int | None = None
        self.then = AT_STEP
        self._notify, self._end = notify, at_once
        self._process = os.getpid()

    @property
    def seconds(self) -> float:
        """Since the first one came; 0 if none has."""
        return 0.0 if self.received is None else time.monotonic() - self.asked_at

    def _serve(self, number: int) -> None:
        if os.getpid() != self._process:
            return  # forked to load data: its parent, which got the signal too, ends it
        if self.received is None:
            self.received = number
            name = signal.Signals(number).name
            self._notify(f"{name}: {self.then}; send it again to stop at once")
        else:
            try:
                self._end(number)
            finally:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
                os._exit(128 + number)  # the first process of a container ignores its own signals
