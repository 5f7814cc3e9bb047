"""The constants of the tensor-core long convolution: the matrices F and W, and quarter turns."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

LARGEST_TILE = 128  # rows of F that a kernel may take at once; smaller tiles divide it
_Made = tuple[Tensor, ...]
_cache: dict[tuple[int, int, torch.device], _Made] = {}  # few sizes exist


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
    outer, inner, turns = _kept(key, lambda: _factors(rows, columns, device))
    return outer, inner, turns


def _kept(key: tuple[int, int, torch.device], make: Callable[[], _Made]) -> _Made:
    found = _cache.get(key)
    if found is None:
        found = make()
        # What a CUDA graph records exists after a replay only, so it is not kept for others.
        if key[2].type != "cuda" or not torch.cuda.is_current_stream_capturing():
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
    turns = torch.view_as_real(
        _turns(torch.arange(rows * columns, device=device), 4 * rows * columns)
    )
    return padded, _in_eights(inner), turns.float()


def fourier_matrix(size: int, device: torch.device) -> Tensor:
    """exp(-2 pi i g r / C) / sqrt(C) as (2 C, 2 C) float16, its rows in alternating eights."""
    key = (0, size, device)  # no F has zero rows
    g = torch.arange(size, device=device)
    return _kept(key, lambda: (_in_eights(_turns(g[:, None] * g, size) * size**-0.5),))[0]


def _in_eights(values: Tensor) -> Tensor:
    """Complex matrices (..., C, C) as real ones (..., 2 C, 2 C), float16."""
    upper = torch.cat([values.real, -values.imag], dim=-1)  # (..., C, 2 C)
    lower = torch.cat([values.imag, values.real], dim=-1)
    eights = [half.unflatten(-2, (-1, 8)) for half in (upper, lower)]
    return torch.stack(eights, dim=-3).flatten(-4, -2).half()


def few(rows: int) -> int:
    """``rows``, or up to a quarter more: few numbers come out, each has its own tables."""
    step = 1
    while step * 8 < rows:
        step *= 2
    return -(-rows // step) * step


def padded_rows(rows: int) -> int:
    """The columns of F: a power of two, and at least what a tensor core takes."""
    return max(16, 1 << (rows - 1).bit_length())


def _turns(steps: Tensor, whole: int) -> Tensor:
    """exp(-2 pi i steps / whole), complex128."""
    angles = (steps % whole).double() * (-2 * math.pi / whole)
    return torch.polar(torch.ones_like(angles), angles)
