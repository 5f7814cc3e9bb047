"""What the Triton kernels of linear attention serve."""

from __future__ import annotations

MAX_HEAD_DIM = 128  # a state of 128 x 128 in float32 is what a program can hold
MIN_PART = 64  # narrower parts of a head would read q and k too often
# Why kernels=auto leaves the form that forgets to plain PyTorch; None where it does not.
DECAYED_DRAWBACK: str | None = (
    "the kernels of heads that forget have not passed all of their tests on a GPU"
)


def obstacle(dk: int, dv: int) -> str | None:
    """Why the kernels cannot serve heads of dk and dv channels; None where they can."""
    if dk > MAX_HEAD_DIM:
        return f"q and k of {dk} channels a head are wider than {MAX_HEAD_DIM}: take more num_heads"
    if value_parts(dv) is None:
        return (
            f"values of {dv} channels a head are wider than {MAX_HEAD_DIM} and do not divide into "
            f"parts of {MIN_PART} to {MAX_HEAD_DIM}: take more num_heads"
        )
    return None


def value_parts(dv: int) -> int | None:
    """Into how many equal parts the values of a head are cut; None where no number fits.

    The columns of a state know nothing of each other, so a wide head is several narrow ones with
    the same q and k.
    """
    fewest = -(-dv // MAX_HEAD_DIM)
    for parts in range(fewest, max(fewest, dv // MIN_PART) + 1):
        if dv % parts == 0:
            return parts
    return None
