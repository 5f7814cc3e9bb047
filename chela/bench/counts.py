"""Numbers that a benchmark is given by its command line: from 1 up."""

from __future__ import annotations

from argparse import ArgumentTypeError


def count(text: str) -> int:
    """``"1024"`` as a number.

    Raises:
        ArgumentTypeError: it is none from 1 up.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)


def counts(text: str) -> list[int]:
    """``"1024,4096"`` as numbers.

    Raises:
        ArgumentTypeError: one of them is none from 1 up.
    """
    return [count(each) for each in text.split(",")]
