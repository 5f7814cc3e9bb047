"""What the Triton kernels of linear attention serve."""

from __future__ import annotations

MAX_HEAD_DIM = 128  # a state of 128 x 128 in float32 is what a program can hold


def obstacle(head_dim: int) -> str | None:
    """Why the kernels cannot serve heads of ``head_dim`` channels; None where they can."""
    if head_dim <= MAX_HEAD_DIM:
        return None
    return f"a head of {head_dim} channels is wider than {MAX_HEAD_DIM}: take more num_heads"
