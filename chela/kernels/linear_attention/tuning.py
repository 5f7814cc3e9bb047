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


SEGMENT = 512  # tokens between stored states: an eighth of q's bytes at head dim 64, float32
STREAM_TOKENS = 1024  # per program of a stream at least: its state is then an eighth of its bytes


def causal_parts(batch_heads: int, length: int, x: Tensor) -> tuple[int, int]:
    """Parts of a sequence and tokens per part for the causal kernels, in whole segments.

    Enough programs for two on every multiprocessor, and no split where the heads already fill
    most of them: a split reads k and v once more.
    """
    segments = -(-length // SEGMENT)
    processors = _processors(x)
    if 4 * batch_heads >= 3 * processors:
        return 1, segments * SEGMENT
    per_part = -(-segments // max(1, min(segments, 2 * processors // max(1, batch_heads))))
    return -(-segments // per_part), per_part * SEGMENT


def stream_parts(batch_heads: int, length: int, x: Tensor) -> tuple[int, int]:
    """Parts of a sequence and tokens per part for the kernels without a walk."""
    most = -(-length // STREAM_TOKENS)
    parts = max(1, min(most, 8 * _processors(x) // max(1, batch_heads)))
    tokens = -(-length // parts // 128) * 128  # whole tiles of any chunk size
    return -(-length // tokens), tokens


def _processors(x: Tensor) -> int:
    """Multiprocessors of the device of ``x``; a few for the interpreter on a CPU."""
    if x.device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(x.device).multi_processor_count
