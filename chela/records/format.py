"""Numbers as people read them."""

from __future__ import annotations

import math


def human(number: float) -> str:
    """``12345678 -> '12.3M'``: three digits and a unit."""
    rounded = float(f"{number:.3g}")  # first, or 999,999 would be 1000k
    power = min(3, max(0, int(math.log10(max(abs(rounded), 1)) / 3 + 1e-9)))
    return f"{rounded / 1000**power:.3g}{['', 'k', 'M', 'G'][power]}"


def size(count: float) -> str:
    """``733687808 -> '734 MB'``: bytes in decimal units, three digits."""
    text = human(count)
    digits = text.rstrip("kMG")
    return f"{digits} {text[len(digits) :]}B"


def duration(seconds: float) -> str:
    """``3725 -> '1 h 02 min'``, ``7 -> '7 s'``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
