"""The signals that ask a run to save itself and stop, and how to keep them from its helpers."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# Ctrl-C, a batch system's end of time, its warnings before (Slurm's --signal), a closed terminal.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


@contextmanager
def held_back(numbers: Iterable[int] = STOPPING) -> Iterator[None]:
    """Signals that ask to stop wait until the end, and never reach processes started meanwhile.

    Batch systems, terminals and ``timeout`` signal a whole group. Who helps must not die before
    the one who saves has done so; it ends when that one does.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
