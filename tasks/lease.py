"""Who is at a place of a disk: a lease, which its holder renews, and which lapses if it does not.

A lease of ``<folder>/<name>`` is a file ``<folder>/<name>.<number>``, made by whoever finds no
living one before it. That a file is made by one process alone is all that a disk has to promise:
network disks do, whose locks often reach no further than one machine. Two that take the place of a
dead holder make the same file, so one of them does not; nobody removes what a living one has made.

On the machine of its holder a lease ends with that process, whatever ended it. Elsewhere it lapses
when it was not renewed for ``LAPSE``: a machine that lost its power, or its network. Who takes it
over looks whether it is renewed all the same, by a clock that is wrong. A process that
comes back from there, and finds its lease gone, ends at once: another one has taken over.
A lease that only says who is there may be lost (``hold``, ``vital``).
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from tasks.holder import RENEW, SILENT, Holder, this_process
from tasks.screen import Screen

APART = 3600.0  # by which clocks of machines may differ
ATTEMPTS = 100  # in a folder that others, whose runs do not start, make and remove
LARGEST = 4096  # bytes that are read of a lease

# By how many seconds this machine's clock is ahead of a disk's, by the disk's number: known before
# the first lease is taken, for the disk's clock dates what is written there.
_AHEAD: dict[int, float] = {}


class Taken(Exception):
    """A living process holds the lease."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(f"taken by {holder.describe()}")
        self.holder = holder


def holder_of(place: Path, now: float | None = None) -> Holder | None:
    """The living holder of a place; None: there is none. It needs no right to write.

    Args:
        place: see ``hold``.
        now: seconds since the epoch; None: the clock's.
    """
    return _living(_leases(place), time.time() if now is None else now)


@contextmanager
def hold(
    place: Path, wait: Callable[[Holder], bool] = lambda _: False, vital: bool = True
) -> Iterator[None]:
    """Hold a place while the body runs; the folders above it are made.

    Args:
        place: a path that nothing else has.
        wait: asked about a living holder, now and then: whether to wait for its end.
        vital: whether this process ends if it loses it, since it writes where the next one will.

    Raises:
        Taken: it is not to be waited for.
        OSError: the disk takes no file.
    """
    pause = 0.02  # seconds
    while isinstance(lease := _take(place), Holder):
        if not wait(lease):
            raise Taken(lease)
        time.sleep(pause)
        pause = min(1.0, 1.5 * pause)
    process, over = os.getpid(), threading.Event()
    threading.Thread(target=_renew, args=(lease, over, vital), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        if os.getpid() == process:  # not a process forked from it
            lease.leave()


@dataclass(frozen=True)
class _Lease:
    file: Path
    holder: Holder

    def make(self) -> None:
        """Make the file.

        Raises:
            FileExistsError: another process was faster.
            OSError: the disk takes no more; then nothing stays behind, which would be a lease.
        """
        with self.file.open("xb", buffering=0) as file:
            try:
                file.write(json.dumps(asdict(self.holder)).encode())
                file.close()  # network disks write now
            except OSError as error:
                self.file.unlink(missing_ok=True)
                error.filename = str(self.file)
                raise

    def renew(self) -> None:
        """Give a sign of life."""
        os.utime(self.file)
        _compare_clocks(self.file.stat())

    def is_ours(self) -> bool:
        """Whether nobody has taken over.

        Raises:
            OSError: it cannot be read now.
        """
        with suppress(FileNotFoundError):
            return _read(self.file).token == self.holder.token
        return False

    def leave(self) -> None:
        with suppress(OSError):  # a disk that is read-only by now: it ends with the process
            if self.is_ours():
                self.file.unlink(missing_ok=True)


def _compare_clocks(written: os.stat_result) -> None:
    """By a file that was written just now."""
    _AHEAD[written.st_dev] = time.time() - written.st_mtime


def _learn_clock(folder: Path) -> None:
    """Compare the clocks by a file without a name, unless that was done before."""
    with suppress(OSError):  # a disk that takes no file; the lease will say so
        if folder.stat().st_dev not in _AHEAD:
            with tempfile.TemporaryFile(dir=folder) as file:
                _compare_clocks(os.fstat(file.fileno()))


def _take(place: Path) -> _Lease | Holder:
    """The lease of a place, or who has it."""
    for attempt in range(ATTEMPTS):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            _learn_clock(place.parent)
            before = _leases(place)
            if holder := _living(before, time.time()) or _stirring(place, before):
                return holder
            lease = _Lease(_file(place, max(before, default=0) + 1), this_process())
            lease.make()
        except FileExistsError:  # another one was faster; or Python's mkdir, while the folder went
            continue
        except FileNotFoundError:  # the folder went again
            if attempt == ATTEMPTS - 1:
                raise
            continue
        others = {n: each for n, each in _leases(place).items() if each.token != lease.holder.token}
        # some may have come, and gone, since the look before
        if holder := _living(others, time.time()):
            lease.leave()
            return holder
        for number in others:
            _file(place, number).unlink(missing_ok=True)
        return lease
    raise FileExistsError(17, "others take and leave it all the time", str(place))


def _living(leases: dict[int, Holder], now: float) -> Holder | None:
    return next((each for _, each in sorted(leases.items()) if each.lives(now)), None)


def _stirring(place: Path, leases: dict[int, Holder]) -> Holder | None:
    """Who gives signs of life, though it lapsed by the clocks; to know that takes ``SILENT``.

    Many disks of clusters date by the clock of whoever writes, which may be wrong by minutes.

    Args:
        place: see ``hold``.
        leases: as they were found; none of them lives.
    """
    end, now = time.monotonic() + SILENT, time.time()
    watched = {n: each for n, each in leases.items() if each.lives(now, APART)}
    while watched and time.monotonic() < end:
        time.sleep(RENEW / 10)
        found = _leases(place)
        watched = {n: each for n, each in watched.items() if n in found}
        for n, each in watched.items():
            if found[n].token != each.token or found[n].renewed - each.renewed > RENEW / 2:
                return replace(found[n], renewed=time.time())
    return None


def _leases(place: Path) -> dict[int, Holder]:
    """All leases of a place, the dead ones too, by number."""
    found: dict[int, Holder] = {}
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(place.parent):
            number = entry.name.removeprefix(f"{place.name}.")
            if entry.name == number or not (number.isdecimal() and number.isascii()):
                continue
            with suppress(OSError):
                found[int(number)] = _read(Path(entry.path))
    # a network disk's listing may be a minute old, but what is opened is looked up
    with suppress(OSError):
        while True:
            following = max(found, default=0) + 1
            found[following] = _read(_file(place, following))
    return found


def _file(place: Path, number: int) -> Path:
    return place.with_name(f"{place.name}.{number}")


def _read(file: Path) -> Holder:
    """What a lease says. Opened, a network disk shows it as it is now.

    Raises:
        OSError: there is none, or it cannot be read now.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # a pipe is not waited for
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(2, "it is no file", str(file))
        content = _texts(os.read(descriptor, LARGEST))
    finally:
        os.close(descriptor)
    return Holder(**{**content, "renewed": found.st_mtime + _AHEAD.get(found.st_dev, 0.0)})


def _texts(written: bytes) -> dict[str, Any]:
    """The fields of a holder; of one that is just being written, or damaged, only a name."""
    unknown = {"host": "a machine that is not named"}
    try:
        content = json.loads(written)
        if content.keys() != {each.name for each in fields(Holder)}:
            return unknown
    except (ValueError, AttributeError, RecursionError):
        return unknown
    job = content["job"]
    texts = [content["host"], content["machine"], content["started"], content["token"], job or ""]
    numbers = [content["pid"], content["restarts"]]
    whole = all(isinstance(each, str) for each in texts) and all(type(n) is int for n in numbers)
    return content if whole else unknown


def _renew(lease: _Lease, over: threading.Event, vital: bool) -> None:
    """In a thread: signs of life, until the end or the loss."""
    while not over.wait(RENEW):
        with suppress(OSError):  # a disk that is away for a while
            if lease.is_ours():
                lease.renew()
            else:
                if vital and not over.is_set():
                    _end(lease)
                return


def _end(lease: _Lease) -> None:
    """What this process writes would meet what another one does."""
    other = holder_of(lease.file.with_suffix(""))
    who = "it was removed" if other is None else f"{other.describe()} has taken over"
    Screen(stderr=True).say(
        f"error: {lease.file} is not this process's any more ({who}); it ends here.\n"
        "  try: the same command, if nothing else is running it"
    )
    os._exit(1)
