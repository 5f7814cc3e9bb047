"""The signals that ask a run, or a sweep of them, to save itself and stop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from tasks.signals import STOPPING

SAME_REQUEST = 1.0  # seconds within which signals are one: a batch system signals every process


def exit_status(number: int) -> int:
    """Of a process that a signal has stopped and that ends by itself, as a shell has it."""
    return 128 + number


class StoppingSignals:
    """Takes ``STOPPING`` over for a while; the main thread's business.

    Whoever had a handler of his own for a signal before, as what runs jobs of Slurm or Ray has,
    gets it at the end: when all is saved, the job can be put into the queue again.

    Args:
        handler: called with the number of each signal that is a request of its own.
        slack: seconds by which ``SAME_REQUEST`` is longer here.

    Attributes:
        asked_at: when the latest request came, ``time.monotonic()``.
    """

    def __init__(self, handler: Callable[[int], None], slack: float = 0.0) -> None:
        self._handler, self._slack = handler, slack
        self.asked_at = -math.inf
        self._before: dict[int, Any] = {}
        self._latest: int | None = None

    def install(self) -> None:
        """Take the signals over, again if another has since; ``remove`` gives them back."""
        for number in STOPPING:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: it is to go on without its terminal
            before = signal.signal(number, self._receive)
            self._before.setdefault(number, before)

    def remove(self) -> None:
        """Give the signals back to whom they belonged. Safe to call twice."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self.asked_at > SAME_REQUEST + self._slack:
            self.asked_at, self._latest = now, number
            self._handler(number)

    def __enter__(self) -> None:
        self.install()

    def __exit__(self, *_: object) -> None:
        self.remove()
        if self._latest is not None:
            theirs = signal.getsignal(self._latest)
            if callable(theirs) and theirs is not signal.default_int_handler:
                signal.raise_signal(self._latest)
