"""The errors of the engine that a user can put right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tasks.errors import UserError


class ChelaError(UserError):
    """What is not in order beside the data."""

    STATUS = 1  # that a command ends with


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


def suggestion(word: str, choices: Iterable[str]) -> str:
    """``Did you mean 'depth'? Choices: depth, dim`` for a word that is none of the choices."""
    known = sorted(choices)
    lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), lower, n=1)
    hint = f"Did you mean '{lower[near[0]]}'? " if near else ""
    return f"{hint}Choices: {', '.join(known)}"
