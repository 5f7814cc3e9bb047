"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from chela.records.record import number

Place = str | tuple[str, ...]  # of a record


def human(count: float) -> str:
    """``12345678 -> '12.3M'``: three digits and a unit."""
    rounded = float(f"{count:.3g}")  # first, or 999,999 would be 1000k
    power = min(4, max(0, int(math.log10(max(abs(rounded), 1)) / 3 + 1e-9)))
    return f"{rounded / 1000**power:.3g}{['', 'k', 'M', 'G', 'T'][power]}"


def size(count: float) -> str:
    """``733687808 -> '734 MB'``: bytes in decimal units, three digits."""
    text = human(count)
    digits = text.rstrip("kMGT")
    return f"{digits} {text[len(digits) :]}B"


def duration(seconds: float) -> str:
    """``3725 -> '1 h 02 min'``, ``7 -> '7 s'``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def numbers(record: Mapping[str, Any], *parts: tuple[Place, str | Callable[[float], str]]) -> str:
    """The numbers at some places of a record, each in its form, as far as there are any."""
    found = "".join(
        form.format(value) if isinstance(form, str) else form(value)
        for place, form in parts
        if (value := number(record, place)) is not None
    )
    return found.removeprefix(", ").removeprefix("; ").strip()


def pairs(values: Any) -> str:
    """``"torch 2.11.0, triton 3.6.0"`` of a section of a record; what is null is left out."""
    known = values.items() if isinstance(values, Mapping) else ()
    return ", ".join(f"{name} {value}" for name, value in known if value is not None)
