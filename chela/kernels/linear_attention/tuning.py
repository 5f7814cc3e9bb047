"""How the Triton kernels are cut into tiles and programs: by measurement, not at run time.

Measured on an H200 in bfloat16, head dims 32 and 64 and lengths from 1K to 16K. The kernels are
bound by memory; what is chosen here is how many tiles are on their way at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from chela.kernels.launching import options, processors


@dataclass(frozen=True)
class Tiles:
    """How one kernel is cut and launched."""

    chunk: int  # tokens C per tile
    warps: int
    stages: int  # tiles in flight in the software pipeline
    registers: int | None = None  # per thread at most; fewer let more programs share a processor

    @property
    def options(self) -> dict[str, int]:
        """Triton's launch options."""
        return options(self.warps, self.stages, self.registers)


def exact(x: Tensor) -> bool:
    """Whether products keep all bits of float32: where PyTorch's own matrix products must."""
    return x.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"


def forward_tiles(x: Tensor, widest: int) -> Tiles:
    """For the causal forward walk over ``x``, with padded head dims of at most ``widest``."""
    if exact(x) or widest > 64:
        return _large(x, widest)
    return Tiles(64, 4, 4 if widest <= 32 else 3)


def backward_tiles(x: Tensor, widest: int, part_tokens: int) -> Tiles:
    """For the walks of the causal gradient, each ``part_tokens`` long.

    Long walks of one head drift apart and meet less in the L2 cache: fewer tiles ahead keep them
    together.
    """
    if exact(x) or widest > 64:
        return _large(x, widest)
    ahead = 4 if part_tokens <= 1024 else 3
    return Tiles(64, 4, ahead, registers=168 if widest <= 32 else None)  # three programs share


def stream_tiles(x: Tensor, widest: int) -> Tiles:
    """For the kernels without a walk: states of parts, and all bidirectional ones."""
    if exact(x) or widest > 64:
        return _large(x, widest)
    return Tiles(64, 4, 4)


def decayed_tiles(x: Tensor, value_width: int) -> Tiles:
    """For all kernels of the form that forgets, which share their chunks, with padded heads of v.

    A state per chunk is written and read: fewer tokens would cost traffic, more of them registers,
    of which the compiler says that these are enough. Chosen by its figures, not measured yet. The
    chunk is known where PyTorch traces, to which the precision of products is not.
    """
    if x.dtype == torch.float32:
        return Tiles(16, 4 if value_width <= 32 else 8, 1)
    return Tiles(64, 4 if value_width <= 64 else 8, 2)


def decayed_walk(tiles: Tiles) -> Tiles:
    """For the scan of states among them: few programs, which would wait for each chunk's tokens."""
    return tiles if tiles.stages == 1 else replace(tiles, stages=4)


def decayed_values(tiles: Tiles) -> Tiles:
    """For the gradients of values and decays among them, which read all there is of a head.

    One stage leaves shared memory for two programs on a processor; chosen by that, not measured.
    """
    return replace(tiles, stages=1)


def state_slices(dk: int) -> int:
    """Over how many programs the rows of a state of the form that forgets are divided."""
    return dk // 64 if dk % 64 == 0 else 1


def _large(x: Tensor, widest: int) -> Tiles:
    """What fills registers and shared memory: exact products, off the tensor cores, and wide heads.

    One stage: with more, a wide head's tiles leave room for one program on a processor.
    """
    if exact(x):
        return Tiles(16, 4 if widest <= 32 else 8, 1)
    return Tiles(64, 8 if x.dtype == torch.float32 else 4, 1)


PART_TOKENS = 512  # per part of a split sequence at least: a state is then an eighth of k and v
TILE = 128  # tokens that every chunk size divides
STREAM_TOKENS = 512  # per program of a stream at least: its state is then a quarter of its bytes


def forward_parts(batch_heads: int, length: int, x: Tensor) -> tuple[int, int]:
    """Parts of a sequence and tokens per part for the causal forward walk.

    Enough programs for two on every multiprocessor, and no split where the heads already fill
    most of them: a split reads k and v once more.
    """
    fill = processors(x)
    if 4 * batch_heads >= 3 * fill:
        return 1, length
    return _split(length, 2 * fill // batch_heads, PART_TOKENS)


def backward_parts(batch_heads: int, length: int, x: Tensor) -> tuple[int, int]:
    """Parts of a sequence and tokens per part for the three walks of the causal gradient.

    The parts of the forward walk; or, where that was not split, more: three walks a head that do
    not fill the multiprocessors evenly wait for the slowest, and short walks meet in the L2 cache.
    """
    parts, tokens = forward_parts(batch_heads, length, x)
    if parts > 1 or 3 * batch_heads >= 4 * processors(x):
        return parts, tokens
    return _split(length, 16 * processors(x) // batch_heads, PART_TOKENS)


def decayed_parts(walks: int, length: int, x: Tensor) -> tuple[int, int]:
    """Parts of a sequence and tokens per part for the scan of the form that forgets.

    A walk waits for memory at every chunk, so that programs cost little until six share a
    multiprocessor; but parts are walked through twice, which pays below two.
    """
    if walks >= 2 * processors(x):
        return 1, length
    return _split(length, 6 * processors(x) // walks, PART_TOKENS)


def stream_parts(batch_heads: int, length: int, x: Tensor) -> tuple[int, int]:
    """Parts of a sequence and tokens per part for the kernels without a walk."""
    wanted = min(-(-length // STREAM_TOKENS), 4 * processors(x) // batch_heads)
    return _split(length, wanted, TILE)


def _split(length: int, wanted: int, step: int) -> tuple[int, int]:
    """About ``wanted`` parts (at least one) of equally many tokens, a multiple of ``step``."""
    tokens = -(-length // (max(1, wanted) * step)) * step
    return -(-length // tokens), tokens
