"""Gratings: which of ten striped textures a small noisy picture shows, from its pixels in a row.

A small generated stand-in for Image, for machines without the files of CIFAR-10: pictures by a
formula, read as Image's are. Its numbers say nothing of CIFAR-10, so it has a name of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le
from pydantic.dataclasses import dataclass

from tasks.image.pixels import CLASSES, Images, Standardised, stored
from tasks.loader import Encoding
from tasks.pictures import PictureTask
from tasks.spec import PositiveInt, Seed, Sized, TaskSpec
from tasks.storage.meta import Origin
from tasks.storage.rows import Rows, split_rows

BLOCK = 1000  # pictures drawn at once; part of the law, as each block has its own random stream
ORIENTATIONS = 5  # from 0 to 180 degrees; soft and hard stripes of each: ten classes
WAVELENGTH = (3.0, 6.0)  # pixels, drawn per picture
CONTRAST = (0.6, 1.0)  # of the stripes, drawn per picture
STANDARD = Standardised(mean=(0.5,), std=(0.25,))


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class GratingsConfig(Sized):
    """``configs/task/gratings.yaml`` says the same."""

    name: Literal["gratings"] = "gratings"
    side: Annotated[int, Ge(8), Le(64)] = 12  # pixels; the sequence has side * side
    noise: Annotated[float, Ge(0), Le(1)] = 0.25  # deviation of each pixel, white being 1
    num_train: PositiveInt = 8_000
    num_val: PositiveInt = 1_000
    num_test: PositiveInt = 2_000
    data_seed: Seed = 0  # fixed: runs differ by seed, not by their data


class Gratings(PictureTask):
    """The task of the gratings."""

    version = 1
    Config = GratingsConfig
    config: GratingsConfig

    @property
    def spec(self) -> TaskSpec:
        """A real number per pixel, ten classes."""
        return TaskSpec(self.name, CLASSES, self.config.side**2, None, input_dim=1)

    @property
    def encoding(self) -> Encoding:
        """Levels as real numbers of about mean 0 and deviation 1, (B, L)."""
        return Encoding(STANDARD)

    def origin(self) -> Origin:
        """The law, the seed and the sizes."""
        config = self.config
        parameters: dict[str, Any] = {
            "side": config.side,
            "noise": config.noise,
            "rows": config.sizes,
            "seed": config.data_seed,
        }
        return Origin(self.name, self.version, "generated", parameters)

    def rows(self) -> Iterator[tuple[str, Rows]]:
        """The pictures, row by row of their pixels."""
        config, n = self.config, self.config.total
        blocks = (
            stored(draw(min(BLOCK, n - at), config.side, config.noise, (config.data_seed, at)))
            for at in range(0, n, BLOCK)
        )
        return split_rows(blocks, config.sizes)

    @property
    def shape(self) -> tuple[int, int]:
        """(side, side)."""
        return self.config.side, self.config.side


def draw(count: int, side: int, noise: float, seed: tuple[int, ...]) -> Images:
    """``count`` pictures: stripes of the class's direction and profile, under noise.

    Class ``k`` has orientation ``k % 5`` of five, and is soft below 5, hard from there on. Phase,
    wavelength and contrast are any.

    Args:
        count: how many.
        side: pixels of a side.
        noise: standard deviation of Gaussian noise on each pixel, levels being 0 to 1.
        seed: of the random stream.
    """
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    angle = np.pi * (labels % ORIENTATIONS) / ORIENTATIONS
    frequency = 2 * np.pi / random.uniform(*WAVELENGTH, count)  # radians per pixel
    contrast = random.uniform(*CONTRAST, count)
    phase = random.uniform(0, 2 * np.pi, count)
    y, x = np.mgrid[:side, :side].reshape(2, 1, -1)  # (1, side * side) each
    along = np.cos(angle)[:, None] * x + np.sin(angle)[:, None] * y
    soft = np.sin(frequency[:, None] * along + phase[:, None])
    stripes = np.where((labels < ORIENTATIONS)[:, None], soft, np.sign(soft))
    level = 0.5 + 0.5 * contrast[:, None] * stripes + random.normal(0, noise, (count, side**2))
    pixels = np.clip(np.rint(255 * level), 0, 255).astype(np.uint8)
    return Images(pixels[:, None], labels)
