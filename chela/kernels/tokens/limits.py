"""What the Triton forms of the token-wise operations serve."""

from __future__ import annotations

import torch

MAX_DIM = 512  # a tile holds whole tokens, and with them a multiprocessor's memory
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def obstacle(dim: int) -> str | None:
    """Why the kernels cannot serve tokens of ``dim`` channels; None where they can."""
    if dim <= MAX_DIM:
        return None
    return f"D={dim}: the token-wise Triton kernels serve up to {MAX_DIM} channels"
