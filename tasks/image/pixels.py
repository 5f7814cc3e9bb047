"""Images as sequences of pixels, row by row: as they are stored, and as a model takes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.storage.rows import Rows

CLASSES = 10  # of CIFAR-10 and of MNIST
BLOCK = 500  # images turned grey at once: their 32-bit form stays at a few megabytes
# Pillow's fixed point: weights of 2**16 in all; 0x8000, a half, is added before the shift.
GREY = np.array([19595, 38470, 7471], dtype=np.uint32)


class Images(NamedTuple):
    """``n`` images of ``L`` pixels in ``C`` channels."""

    pixels: NDArray[np.uint8]  # (n, C, L): red, green, blue; or one channel
    labels: NDArray[np.int64]  # (n,), 0 .. 9


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """0.299 R + 0.587 G + 0.114 B of pixels (n, 3, L), rounded as Pillow's mode L: (n, 1, L)."""
    count, _, length = pixels.shape
    levels = np.empty((count, 1, length), dtype=np.uint8)
    for start in range(0, count, BLOCK):
        block = pixels[start : start + BLOCK].astype(np.uint32)
        levels[start : start + BLOCK, 0] = (GREY @ block + 0x8000) >> 16
    return levels


def stored(images: Images) -> Rows:
    """One row per image, its channels side by side at each pixel: lengths L * C."""
    count, channels, length = images.pixels.shape
    values = images.pixels.transpose(0, 2, 1).reshape(count, length * channels)  # (n, L * C)
    return Rows.of_matrix(values, images.labels)


@dataclass(frozen=True)
class Standardised:
    """Stored levels as floats of about mean 0 and deviation 1, from levels scaled to [0, 1].

    Args:
        mean: of each channel.
        std: of each channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, stored: Tensor) -> Tensor:
        """Levels (B, L * C) to values (B, L) of one channel or (B, L, C), float32."""
        channels = len(self.mean)
        pixels = stored.reshape(len(stored), -1, channels).long()  # (B, L, C)
        values = _table(self, stored.device)[pixels, torch.arange(channels, device=stored.device)]
        return values[..., 0] if channels == 1 else values


@lru_cache(maxsize=8)
def _table(standard: Standardised, device: torch.device) -> Tensor:
    """What each level becomes in each channel (256, C)."""
    level = np.arange(256)[:, None] / 255  # (256, 1)
    table = ((level - standard.mean) / standard.std).astype(np.float32)
    return torch.from_numpy(table).to(device)
