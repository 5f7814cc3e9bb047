"""The command line as it is kept and shown: what a user would type again, without secrets."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MASK = "***"
MODULE = "__main__.py"  # what `python -m chela` runs
SECRET = "KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH"
IN_ADDRESS = re.compile(r"(://[^\s/@:]*:)[^\s/]+@")  # http://user:password@proxy
_INNER = rf"(\w*(?:{SECRET})\w*['\"]?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^,}}]+)"  # {A_KEY: x, B: y}


def masked(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command line with ``***`` for the value of a KEY, TOKEN, SECRET, PASSWORD, ...

    Names of environment variables are meant: in capitals, or in any case below Hydra's ``env_set``.
    """
    return [_masked(each) for each in arguments]


def program(argv: Sequence[str]) -> list[str]:
    """What Python runs for the same command with other words, from whatever folder.

    Args:
        argv: ``sys.argv`` of a script, of ``chela NAME`` or of ``python -m chela NAME``.
    """
    script = Path(argv[0])
    if script.name == MODULE:
        return ["-m", "chela", argv[1]]
    return [str(script.absolute()), *argv[1 : _words_at(argv)]]


def command_line(argv: Sequence[str]) -> str:
    """What a user would type to run this again, in the folder where this one runs; no secrets.

    Args:
        argv: see ``program``; a sweep starts its cells by the whole path, and the cell's number
            computes nothing.
    """
    script, here = Path(argv[0]), Path.cwd()
    if _words_at(argv) > 1:
        script = Path("chela")
    elif script.is_absolute() and script.is_relative_to(here):
        script = script.relative_to(here)
    rest = [each for each in argv[1:] if not each.startswith("hydra.job.num=")]
    return shlex.join([str(script), *masked(rest)])


def typed(line: str) -> str:
    """A ``command_line`` with the ``python`` before a script."""
    return line if line.startswith("chela ") else f"python {line}"


def _words_at(argv: Sequence[str]) -> int:
    """Where the words of a command begin: behind the script, or behind ``chela NAME``."""
    return 2 if Path(argv[0]).name in ("chela", MODULE) else 1


@contextmanager
def masked_for_others() -> Iterator[None]:
    """``sys.argv`` without secrets, while a library runs that keeps a copy of it."""
    before = sys.argv
    sys.argv = [before[0], *masked(before[1:])]
    try:
        yield
    finally:
        sys.argv = before


def _masked(argument: str) -> str:
    key, equals, value = IN_ADDRESS.sub(rf"\1{MASK}@", argument).partition("=")
    flags = re.IGNORECASE if "env_set" in key else 0
    if equals and re.search(SECRET, key, flags):
        return f"{key}={MASK}"
    return key + equals + re.sub(_INNER, rf"\1{MASK}", value, flags=flags)
