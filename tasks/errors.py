"""Errors for the person at the terminal: the message alone is shown, no traceback."""

from __future__ import annotations

from tasks.screen import visible


class UserError(Exception):
    """Something the user can put right; the message says what and how."""

    def __str__(self) -> str:
        return visible(super().__str__())  # it may quote a file of anyone's


class DataError(UserError):
    """The data are not as they must be; the message says which, where, and what to do about it."""


def first_line(error: Exception) -> str:
    """Of an error's message; its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
