"""What the Triton kernels of linear attention serve."""

from __future__ import annotations

MAX_HEAD_DIM = 128  # a state of 128 x 128 in float32 is what a program can hold
MIN_PART = 64  # narrower parts of a head would read q and k too often


def obstacle(dk: int, dv: int, forgets: bool = False) -> str | None:
    """Why the kernels cannot serve heads of dk and dv channels; None where they can."""
    widest, part = _widest(dk, forgets)
    if dk > widest:
        return f"q and k of {dk} channels a head are wider than {widest}: take more num_heads"
    if value_parts(dk, dv, forgets) is None:
        return (
            f"values of {dv} channels a head are wider than {part} and do not divide into "
            f"parts of {part // 2} to {part}: take more num_heads"
        )
    return None


def value_parts(dk: int, dv: int, forgets: bool = False) -> int | None:
    """Into how many equal parts the values of a head are cut; None where no number fits.

    The columns of a state know nothing of each other, so a wide head is several narrow ones with
    the same q and k: as few as pad least, since tiles are as wide as a power of two.
    """
    _, widest = _widest(dk, forgets)
    fewest = -(-dv // widest)
    found, least = None, 0
    for parts in range(fewest, max(fewest, dv // MIN_PART) + 1):  # a compiler traces no min(key=)
        width = parts << (dv // parts - 1).bit_length()
        if dv % parts == 0 and (found is None or width < least):
            found, least = parts, width
    return found


def _widest(dk: int, forgets: bool) -> tuple[int, int]:
    """The widest q and k, and the widest part of the values beside dk channels of them.

    Heads that forget keep their state in memory and walk through its rows apart: it may have twice
    as many, of half the columns.
    """
    if not forgets:
        return MAX_HEAD_DIM, MAX_HEAD_DIM
    return 2 * MAX_HEAD_DIM, MAX_HEAD_DIM if dk <= MAX_HEAD_DIM else MAX_HEAD_DIM // 2
