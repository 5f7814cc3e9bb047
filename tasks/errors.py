"""The one error a task reports to the person at the terminal."""


class DataError(Exception):
    """The data are not as they must be; the message says which, where, and what to do about it."""
