"""The one error a task reports to the person at the terminal."""

from __future__ import annotations

from tasks.screen import visible


class DataError(Exception):
    """The data are not as they must be; the message says which, where, and what to do about it."""

    def __str__(self) -> str:
        return visible(super().__str__())  # it may quote a file of anyone's
