"""How a line is printed: whoever reads it, or nobody, decides nothing about the work."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import IO, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

AT_ONCE = 512  # bytes that a pipe which is ready takes without making who writes wait (PIPE_BUF)


class Outlet(io.TextIOBase):
    """A stream whose ``write`` never raises: what it cannot print is dropped or escaped.

    It may be closed, full or a pipe that nobody reads; None; or know fewer characters than the
    text. An ordinary stream of the process is written to past Python's buffer, which would keep
    what was not written, try again when the process ends, and change its exit status.

    Args:
        stream: to print to.
        patience: seconds to wait for a reader that has stopped reading; None: for as long as it
            takes, as is right where the output is what was asked for.

    Attributes:
        gone: whether the reader has left for good.
        failed: why something could not be written, as a disk is full; None: nothing of the kind.
    """

    def __init__(self, stream: TextIO | IO[str] | None, patience: float | None = None) -> None:
        self._stream, self._patience = stream, patience
        self._stuck = self.gone = False
        self.failed: str | None = None
        self._fd: int | None = None
        if type(stream) is io.TextIOWrapper:  # not a test's, a notebook's or another one's
            with suppress(OSError, ValueError):
                self._fd = stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """Of the stream.

        Raises:
            OSError: it has none.
        """
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Print what can be printed; returns the length of ``text``."""
        encoded = text.encode(self.encoding, "backslashreplace")
        if self._fd is not None:
            self.flush()  # what others have printed before
            self._send(self._fd, encoded)
        elif self._stream is not None:
            # RuntimeError: a signal's handler prints in the middle of another line
            with suppress(OSError, ValueError, RuntimeError):
                self._stream.write(encoded.decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        """Hand on what the stream itself has kept."""
        if self._stream is not None:
            with suppress(OSError, ValueError, RuntimeError):
                self._stream.flush()

    def _send(self, fd: int, data: bytes) -> None:
        part, began = AT_ONCE if self._patience is not None else len(data), time.monotonic()
        while data:
            if self._patience is not None and not self._is_read(fd, self._patience):
                return
            try:
                data = data[os.write(fd, data[:part]) :]
            except BlockingIOError:  # somebody who has the same stream made it so
                if self._patience is not None and time.monotonic() - began > self._patience:
                    return
                time.sleep(0.01)
            except OSError as error:
                self.gone = error.errno == errno.EPIPE
                self.failed = None if self.gone else error.strerror
                return

    def _is_read(self, fd: int, patience: float) -> bool:
        """Whether there is room; waits for it once, not for each line that follows."""
        watch = select.poll()
        watch.register(fd, select.POLLOUT)
        ready = bool(watch.poll(0 if self._stuck else patience * 1000))
        self._stuck = not ready
        return ready


def settle_streams(patience: float | None = None) -> None:
    """Let nothing that is printed in this process raise, by whatever library; see ``Outlet``.

    A descriptor 0, 1 or 2 that is closed is opened on nothing: else the next file would get it, and
    what a process of ours prints would be written into that file. Safe to call again.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    if not isinstance(sys.stdout, Outlet):
        sys.stdout = Outlet(sys.stdout, patience)
    if not isinstance(sys.stderr, Outlet):
        sys.stderr = Outlet(sys.stderr, patience)


def visible(text: str) -> str:
    """``text`` with its control characters spelled out: a file may hold what moves the cursor."""
    if all(each.isprintable() or each in "\n\t" for each in text):
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode()
        for each in text
    )


class Screen(Console):
    """Rich's console for all that the project prints. Nothing is markup; nothing here raises.

    Args:
        unattended: characters of a line where there is no terminal.
        stderr: print there instead.
        quiet: print nothing.
        file: print there instead.
    """

    def __init__(
        self,
        unattended: int = 100,
        *,
        stderr: bool = False,
        quiet: bool = False,
        file: IO[str] | None = None,
    ) -> None:
        super().__init__(
            stderr=stderr, quiet=quiet, file=file, markup=False, emoji=False, highlight=False
        )
        if not self.file.isatty():
            self.width = unattended

    @property
    def _outlet(self) -> Outlet:
        stream = Console.file.fget(self)  # type: ignore[attr-defined]
        return stream if isinstance(stream, Outlet) else Outlet(stream)

    @property
    def file(self) -> IO[str]:
        """Where it prints now: ``sys.stdout`` may become another."""
        return self._outlet  # type: ignore[return-value]

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new

    @property
    def gone(self) -> bool:
        """Whether nobody can read what is printed any more; known where streams are settled."""
        return self._outlet.gone

    @property
    def failed(self) -> str | None:
        """Why something that was printed could not be written; known as ``gone`` is."""
        return self._outlet.failed

    def say(self, text: str | Text, style: str | Style = "") -> None:
        """Print lines as they are, however long."""
        self.print(text, style=style or None, soft_wrap=True)

    def tell(self, text: str) -> None:
        """Print sentences, whose lines end between words in a terminal.

        What begins with a blank, a remedy to be typed, stays whole for who copies it.
        """
        for line in text.split("\n"):
            self.print(Text(line), soft_wrap=not self.is_terminal or line.startswith(" "))

    def render_str(self, text: str, **options: Any) -> Text:
        """Rich's, with control characters shown."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Rich's, with control characters shown."""
        if isinstance(renderable, Text) and visible(renderable.plain) != renderable.plain:
            shown = renderable.blank_copy(visible(renderable.plain))
            return super().render(shown, options)
        return super().render(renderable, options)
