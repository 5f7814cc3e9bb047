"""Errors for the person at the terminal: the message alone is shown, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tasks.screen import visible


class ChelaError(Exception):
    """Something the user can put right; the message says what and how."""

    STATUS = 1  # that a command ends with

    def __str__(self) -> str:
        return visible(super().__str__())  # it may quote a file of anyone's


class ConfigError(ChelaError):
    """A configuration that cannot be run: an unknown key, a value out of its choices or range."""


class UnknownKey(ConfigError):
    """A key that nothing reads; the message has those that there are."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key  # whole: model.mixer.qk_dim


class RunError(ChelaError):
    """A run that cannot start or go on: no such GPU, a loss that is not finite."""


class OwnError(RunError):
    """What one process of several meets alone: it says so itself, whichever it is."""


class InUse(RunError):
    """Another process is at that run; a command ends with ``STATUS`` then.

    ``STATUS`` is the system's own for "later it may go well" (EX_TEMPFAIL).
    """

    STATUS = 75


def first_line(error: Exception) -> str:
    """Of an error's message; its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def suggestion(word: str, choices: Iterable[str]) -> str:
    """``Did you mean 'depth'? Choices: depth, dim`` for a word that is none of the choices."""
    known = sorted(choices)
    lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), lower, n=1)
    hint = f"Did you mean '{lower[near[0]]}'? " if near else ""
    return f"{hint}Choices: {', '.join(known)}"
