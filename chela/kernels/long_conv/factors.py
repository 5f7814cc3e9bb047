"""The constants of the tensor-core long convolution: the matrices F and W, and quarter turns."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_TILE = 128  # rows of F that a kernel may take at once; smaller tiles divide it
_cache: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor, Tensor]] = {}  # few sizes exist


def factors(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """F, W and turns for N = rows * columns; ``monarch.py`` says what F and W are.

    Args:
        rows: M.
        columns: C.
        device: where they are made, and stay for the next call.

    Returns:
        F, filled up with zeros to whole tiles of rows and ``padded_rows`` columns, and W
        (M, 2 C, 2 C), its rows in alternating eights (see the kernels), both float16;
        exp(-2 pi i n / 4 N) (N, 2) float32.
    """
    key = (rows, columns, device)
    found = _cache.get(key)
    if found is None:
        found = _factors(rows, columns, device)
        # What a CUDA graph records exists after a replay only, so it is not kept for others.
        if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            _cache[key] = found
    return found


def _factors(rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    f = torch.arange(rows, device=device)
    shifted = 4 * f + 1  # 4 (f + 1/4): whole numbers, so that angles are exact however large
    outer = _turns(shifted[:, None] * f, 4 * rows) * rows**-0.5  # (M, M)
    stacked = torch.view_as_real(outer).permute(0, 2, 1).reshape(2 * rows, rows)
    height = -(-2 * rows // LARGEST_TILE) * LARGEST_TILE
    padded = torch.zeros(height, padded_rows(rows), dtype=torch.float16, device=device)
    padded[: 2 * rows, :rows] = stacked

    r = torch.arange(columns, device=device)
    steps = shifted[:, None, None] * r + 4 * rows * r[:, None] * r  # (M, C, C): f, g, r
    inner = _turns(steps, 4 * rows * columns) * columns**-0.5
    upper = torch.cat([inner.real, -inner.imag], dim=-1)  # (M, C, 2 C)
    lower = torch.cat([inner.imag, inner.real], dim=-1)
    eights = [half.unflatten(1, (columns // 8, 8)) for half in (upper, lower)]
    turns = torch.view_as_real(
        _turns(torch.arange(rows * columns, device=device), 4 * rows * columns)
    )
    return padded, torch.stack(eights, dim=2).flatten(1, 3).half(), turns.float()


def padded_rows(rows: int) -> int:
    """The columns of F: a power of two, and at least what a tensor core takes."""
    return max(16, 1 << (rows - 1).bit_length())


def _turns(steps: Tensor, whole: int) -> Tensor:
    """exp(-2 pi i steps / whole), complex128."""
    angles = (steps % whole).double() * (-2 * math.pi / whole)
    return torch.polar(torch.ones_like(angles), angles)
