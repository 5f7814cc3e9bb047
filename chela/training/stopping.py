"""Who may ask a run to stop, and when that is served.

| who asks         | served                                      | record      | status       |
|------------------|---------------------------------------------|-------------|--------------|
| a signal         | where the run can go on: ``Stopping.serve`` | interrupted | 128 + signal |
| a second one     | at once, as of the last checkpoint          | interrupted | the signal's |
| one at the end   | when all is recorded: ``Ending.leave``      | finished    | 128 + signal |
| a search         | before the next step: ``Pruning``           | interrupted | its own      |
| a process's loss | when it is missed: ``Companions``           | failed      | 1            |

What the record says then, and what is printed, is the business of ``chela.training.ending``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import ClassVar

import lightning as L

from chela.signals import StoppingSignals, exit_status

GRACE = 10.0  # seconds to save in; a batch system kills what goes on for 30
# What follows a signal that comes now, for who sent it:
AT_START = "stopping before the first step, or saving at its end"
AT_STEP = "saving at the end of this step"
AT_VALIDATION = "saving after the validation that ends this step"
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


class Stopping(StoppingSignals):
    """A run's requests to stop: noted when they come, served where the run can go on.

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
        then: what follows a signal that comes now.
    """

    grace: ClassVar[float] = GRACE

    def __init__(self, notify: Callable[[str], None], at_once: Callable[[int], None]) -> None:
        super().__init__(self._note)
        self.received: int | None = None
        self.then = AT_START
        self._notify, self._end = notify, at_once
        self._process = os.getpid()

    @property
    def overdue(self) -> bool:
        """Whether the first one came ``grace`` seconds ago."""
        return self.received is not None and time.monotonic() - self.asked_at > self.grace

    def asked(self, trainer: L.Trainer) -> bool:
        """Whether any process was: a signal may reach only one of a distributed run.

        All of them have to ask this at the same moment.
        """
        asked = self.received is not None
        if trainer.world_size == 1:
            return asked
        return trainer.strategy.reduce_boolean_decision(asked, all=False)

    def serve(self, trainer: L.Trainer, where: str, saved: bool = True) -> None:
        """Stop here, if any process was asked to.

        Raises:
            Interrupted: it was; by SIGTERM where another process knows the signal.
        """
        if self.asked(trainer):
            raise Interrupted(self.received or signal.SIGTERM, where, saved)

    def _note(self, number: int) -> None:
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
                # the first process of a container ignores its own signals
                os._exit(exit_status(number))
