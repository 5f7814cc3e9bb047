"""What is printed never decides about the work, and shows foreign text as it is."""

from __future__ import annotations

import io
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from chela.commands import main
from tasks.screen import Outlet, Screen, visible
from tests.conftest import ROOT


class Refusing(io.StringIO):
    """A stream that fails as told."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS: dict[str, Callable[[], io.TextIOBase | None]] = {
    "None": lambda: None,
    "closed": closed,
    "full": lambda: Refusing(OSError(28, "No space left on device")),
    "gone": lambda: Refusing(BrokenPipeError()),
    "in the middle of a line": lambda: Refusing(RuntimeError("reentrant call")),
    "ASCII": lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii"),
    "Latin-1": lambda: io.TextIOWrapper(io.BytesIO(), encoding="latin-1"),
}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("stderr", [False, True])
def test_nothing_is_raised_whatever_the_stream(
    kind: str, stderr: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = STREAMS[kind]()
    monkeypatch.setattr(sys, "stderr" if stderr else "stdout", stream)
    screen = Screen(stderr=stderr)
    table = Table("é", "★")
    table.add_row("ü", "0.5 ± 0.1")
    screen.say("Grüße \udcff")
    screen.print(table)
    if isinstance(stream, io.TextIOWrapper):
        stream.flush()
        assert b"0.5 " in stream.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("word", ["--help", "--version"])
def test_the_list_of_commands_is_printed_as_all_else(
    kind: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", STREAMS[kind]())
    monkeypatch.setattr(sys, "argv", ["chela", word])
    main()


SAYS = """
import sys
sys.path.insert(0, {root!r})
from tasks.screen import Screen, settle_streams
settle_streams()
file = open({file!r}, "w")
print("a plain line ü")
Screen().say("a line ü")
print("an error ü", file=sys.stderr)
file.write("written\\n")
file.close()
sys.exit(3)
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("redirected", "seen"),
    [
        (">&- 2>&-", ""),
        ("<&- >&- 2>&-", ""),
        ("> /dev/full 2>&1", ""),
        ("2>&1 | true", ""),
        ("> out 2>&1", "a plain line \\xfc\na line \\xfc\nan error \\xfc\n"),
    ],
)
def test_the_exit_status_is_that_of_the_work(tmp_path: Path, redirected: str, seen: str) -> None:
    script, file = tmp_path / "says.py", tmp_path / "file"
    script.write_text(SAYS.format(root=str(ROOT), file=str(file)))
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    result = subprocess.run(
        ["bash", "-c", f'"$0" says.py {redirected}; exit "${{PIPESTATUS[0]}}"', sys.executable],
        cwd=tmp_path,
        env={**os.environ, **ascii_only},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (3, "")
    assert file.read_text() == "written\n"  # and not what was printed
    assert (tmp_path / "out").read_text() == seen if seen else not (tmp_path / "out").exists()


def test_a_reader_that_stands_still_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    class Poll:
        def __init__(self) -> None:
            self.real = poll()
            self.register = self.real.register

        def poll(self, patience: float) -> list[tuple[int, int]]:
            ready = self.real.poll(patience)
            if not ready:
                waits.append(patience)
            return ready

    poll = select.poll
    monkeypatch.setattr("select.poll", Poll)
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        outlet = Outlet(stream, patience=0.05)
        for _ in range(200):
            outlet.write("x" * 1000)
        assert [wait for wait in waits if wait] == [50.0]  # not for each line
        os.read(reader, 1 << 20)
        outlet.write("seen again")
        assert os.read(reader, 1 << 20).endswith(b"seen again")
    os.close(reader)


def test_where_the_output_is_what_was_asked_for_a_slow_reader_gets_all() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # as a program leaves it that shares the stream
    found: list[bytes] = []

    def read() -> None:
        time.sleep(0.1)
        while part := os.read(reader, 1000):
            found.append(part)

    thread = threading.Thread(target=read)
    thread.start()
    with os.fdopen(writer, "w") as stream:
        Outlet(stream).write("y" * 300_000)
    thread.join()
    os.close(reader)
    assert b"".join(found) == b"y" * 300_000


@pytest.mark.parametrize(
    "text", ["[/x]", "[a,b]", "[bold]x", "[link=http://x]", ":smile:", "C:\\new", "'[/b]'"]
)
def test_nothing_is_read_as_markup(text: str) -> None:
    out = io.StringIO()
    screen = Screen(file=out)
    screen.say(text)
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    screen.print(table)
    assert out.getvalue().count(text) == 4


@pytest.mark.parametrize(
    "hostile", ["\x1b[2J", "\x9b2J", "\x07\x08\x7f", "\r", "\u202e", "\x1b]0;x"]
)
def test_control_characters_are_shown_not_sent(hostile: str) -> None:
    out = io.StringIO()
    screen = Screen(file=out)
    shown = visible(f"a{hostile}b")
    table = Table("name")
    table.add_row(f"a{hostile}b")
    table.add_row(Text(f"a{hostile}b", "bold"))
    screen.print(table, f"a{hostile}b")
    screen.say(f"a{hostile}b")
    assert out.getvalue().count(shown) in (3, 4)  # a Text of Rich drops some itself
    assert not [each for each in out.getvalue() if not (each.isprintable() or each == "\n")]


def test_text_that_can_be_shown_is_left_as_it_is() -> None:
    for text in ("über ± 0.3 ★ — 日本", "two\nlines\tand a tab", ""):
        assert visible(text) is text


def test_sentences_end_between_words_in_a_terminal_and_remedies_stay_whole() -> None:
    text, remedy = "the loss is that of guessing", "  try: trainer.micro_batch_size=64"
    for is_terminal, lines in (
        (True, ["the loss is that of", "guessing", remedy]),
        (False, [text, remedy]),
    ):
        screen = Screen(file=io.StringIO())
        screen._force_terminal, screen.width = is_terminal, 20
        with screen.capture() as said:
            screen.tell(f"{text}\n{remedy}")
        assert [line.rstrip() for line in said.get().splitlines()] == lines
