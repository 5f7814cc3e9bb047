"""Tile sizes and launch settings of the Triton kernels, by measurement, not at run time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiles:
    """How one kernel is cut and launched."""

    chunk: int  # tokens C per tile
    warps: int
    stages: int  # tiles in flight in the software pipeline


def causal_forward_tiles(dtype: torch.dtype, widest: int) -> Tiles:
    """For a padded head dim of at most ``widest``."""
    if dtype == torch.float32:
        return _exact(widest)
    return Tiles(64, 4, 3) if widest <= 64 else Tiles(64, 8, 2)


def causal_backward_tiles(dtype: torch.dtype, widest: int) -> Tiles:
    """For a padded head dim of at most ``widest``."""
    if dtype == torch.float32:
        return _exact(widest)
    return Tiles(64, 4, 2) if widest <= 64 else Tiles(64, 8, 1)


def stream_tiles(dtype: torch.dtype, widest: int) -> Tiles:
    """For the kernels without a walk: states of parts, and all bidirectional ones."""
    if dtype == torch.float32:
        return _exact(widest)
    return Tiles(64, 4, 3) if widest <= 64 else Tiles(64, 8, 2)


def _exact(widest: int) -> Tiles:
    """Float32 products do not run on tensor cores: small tiles keep them in registers."""
    return Tiles(16, 4, 1) if widest <= 64 else Tiles(16, 8, 1)


PART_TOKENS = 512  # per part of a split sequence at least: a state is then an eighth of k and v
TILE = 128  # tokens that every chunk size divides
STREAM_TOKENS = 1024  # per program of a stream at least: its state is then an eighth of its bytes


def forward_parts(batch_heads: int, length: int, x: Tensor) -> tuple[int, int]:
    """Parts of a sequence and tokens per part for the causal forward walk.

    Enough programs for two on every multiprocessor, and no split where the heads already fill
    most of them: a split reads k and v once more.
    """
    processors = _processors(x)
    if 4 * batch_heads >= 3 * processors:
        return 1, length
    return _split(length, 2 * processors // batch_heads, PART_TOKENS)


def backward_parts(batch_heads: int, length: int, x: Tensor) -> tuple[int, int]:
    """Parts of a sequence and tokens per part for the three walks of the causal gradient.

    The parts of the forward walk; or, where that was not split, more: three walks a head that do
    not fill the multiprocessors evenly wait for the slowest.
    """
    parts, tokens = forward_parts(batch_heads, length, x)
    processors = _processors(x)
    if parts > 1 or 3 * batch_heads >= 4 * processors:
        return parts, tokens
    return _split(length, 8 * processors // batch_heads, PART_TOKENS)


def stream_parts(batch_heads: int, length: int, x: Tensor) -> tuple[int, int]:
    """Parts of a sequence and tokens per part for the kernels without a walk."""
    wanted = min(-(-length // STREAM_TOKENS), 8 * _processors(x) // batch_heads)
    return _split(length, wanted, TILE)


def _split(length: int, wanted: int, step: int) -> tuple[int, int]:
    """About ``wanted`` parts (at least one) of equally many tokens, a multiple of ``step``."""
    tokens = -(-length // (max(1, wanted) * step)) * step
    return -(-length // tokens), tokens


def _processors(x: Tensor) -> int:
    """Multiprocessors of the device of ``x``; a few for the interpreter on a CPU."""
    if x.device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(x.device).multi_processor_count
