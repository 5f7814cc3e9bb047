"""What the Triton kernels of linear attention serve."""

from __future__ import annotations

MAX_HEAD_DIM = 128  # a state of 128 x 128 in float32 is what a program can hold
