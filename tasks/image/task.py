"""Image: what a small picture shows, from its pixels in a row; ten classes.

CIFAR-10 in grey is the arena's task. The same in colour (sequential CIFAR-10) and MNIST (sequential
MNIST) are other settings with names of their own. Neither has a validation split: a tenth of train
is held out, by S4's rule or Tay's (``split``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from functools import cached_property
from typing import Literal

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from tasks import bits
from tasks.image import cifar_files, cifar_hub, mnist_files
from tasks.image.pixels import CLASSES, Images, Standardised, grey, stored
from tasks.loader import Encoding
from tasks.pictures import PictureTask, mirrored
from tasks.sources.archives import Source
from tasks.sources.locate import check_name, locate
from tasks.spec import TaskSpec
from tasks.storage.meta import Origin
from tasks.storage.rows import Rows

BLOCK = 1000  # images written at once
SPLIT_SEED = 42  # S4's

# What each name promises, so that no number stands under another task's name.
DATASET = {"image": ("cifar10", "grey"), "cifar": ("cifar10", "rgb"), "mnist": ("mnist", "grey")}
SIDE = {"cifar10": 32, "mnist": mnist_files.SIDE}  # pixels
ROWS = {"cifar10": 60_000, "mnist": 70_000}  # of the official data, in all
# S4's: of levels in [0, 1]. It takes MNIST as it is.
STANDARD = {
    "image": Standardised(mean=(122.6 / 255,), std=(61 / 255,)),
    "cifar": Standardised(mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.243, 0.261)),
    "mnist": Standardised(mean=(0.0,), std=(1.0,)),
}


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class ImageConfig:
    """The defaults are S4's Image task; ``configs/task/{image,cifar,mnist}.yaml`` mirror it."""

    name: Literal["image", "cifar", "mnist"] = "image"
    # auto: the official files if they are found, else the hub (CIFAR-10 alone)
    source: Literal["auto", "official", "hub"] = "auto"
    # other files in the official form: a name for them
    stand_in: str | None = field(default=None, metadata={"neutral": None})
    dataset: Literal["cifar10", "mnist"] = "cifar10"
    channels: Literal["grey", "rgb"] = "grey"
    input: Literal["continuous", "symbols"] = "continuous"  # S4's, or 256 grey levels as Tay
    split: Literal["s4", "tay"] = "s4"  # s4: a random tenth of train, seed 42; tay: its last tenth

    def __post_init__(self) -> None:
        check_name(self.stand_in)
        if (self.dataset, self.channels) != DATASET[self.name]:
            names = [name for name, of in DATASET.items() if of == (self.dataset, self.channels)]
            other = f"that is task={names[0]}" if names else "there is no such task"
            raise ValueError(f"{self.name} is not {self.dataset} in {self.channels}; {other}")
        if self.input == "symbols" and self.channels == "rgb":
            raise ValueError("input=symbols needs channels=grey: a symbol is one level")
        if self.source == "hub" and (self.stand_in is not None or self.dataset == "mnist"):
            raise ValueError("the hub is for CIFAR-10, not for stand-ins: leave out source=hub")


class Image(PictureTask):
    """The Image task, sequential CIFAR-10 and sequential MNIST."""

    version = 1
    Config = ImageConfig
    config: ImageConfig

    @property
    def spec(self) -> TaskSpec:
        """Ten classes; one or three real channels, or 256 symbols."""
        length = SIDE[self.config.dataset] ** 2
        symbols = self.config.input == "symbols"
        return TaskSpec(
            self.name,
            CLASSES,
            length,
            vocab_size=256 if symbols else None,
            input_dim=len(STANDARD[self.name].mean),
            augment=mirrored if self.config.dataset == "cifar10" else None,  # digits have sides
        )

    @property
    def encoding(self) -> Encoding:
        """Standardised levels (B, L) or (B, L, 3), or the levels themselves as symbols (B, L)."""
        if self.config.input == "symbols":
            return Encoding()
        standard = STANDARD[self.name]
        return Encoding(standard, channels=len(standard.mean))

    def origin(self) -> Origin:
        """The official images, from wherever they are read, or a stand-in; and the split.

        Prepared data are found without their source: the official content is known by its
        checksums, a stand-in by its name.
        """
        config = self.config
        parameters = {
            "dataset": config.dataset,
            "channels": config.channels,
            "split": config.split,
        }
        return self.given(parameters)

    def rows(self) -> Iterator[tuple[str, Rows]]:
        """The images in the order of the files, their levels from 0 to 255."""
        train: list[Images] = []  # kept until they can be counted: 50 MB in grey, 150 in colour
        for split, images in self._images():
            if self.config.dataset == "cifar10" and self.config.channels == "grey":
                images = images._replace(pixels=grey(images.pixels))
            if split == "train":
                train.append(images)
                continue
            yield from self._of_train(train)
            train = []
            yield from _blocks(split, images)

    def expected_rows(self) -> int | None:
        """The official number; that of a stand-in shows when it is read."""
        return ROWS[self.config.dataset] if self.config.stand_in is None else None

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W), in colour (H, W, 3)."""
        side = SIDE[self.config.dataset]
        return (side, side) if self.config.channels == "grey" else (side, side, 3)

    @cached_property
    def _source(self) -> Source | dict[str, Dataset]:
        """The official files, or the splits of the hub.

        Raises:
            DataError: there are none.
        """
        config = self.config
        files = {"cifar10": cifar_files, "mnist": mnist_files}[config.dataset]
        hub = cifar_hub.HUB if config.dataset == "cifar10" and config.stand_in is None else None
        return locate(self.name, self.data_dir, files.PLACES, hub, config.source, files.WHAT)

    def _images(self) -> Iterator[tuple[str, Images]]:
        """The images of ``train``, then those of ``test``."""
        source, is_official = self._source, self.config.stand_in is None
        if not isinstance(source, Source):
            return cifar_hub.read_hub(source)
        if self.config.dataset == "mnist":
            return mnist_files.read_files(source.path, is_official)
        return cifar_files.read_files(source, is_official)

    def _of_train(self, parts: list[Images]) -> Iterator[tuple[str, Rows]]:
        count = sum(len(images.labels) for images in parts)
        held = held_out(count, self.config.split)
        for split, keep in (("train", ~held), ("val", held)):
            start = 0
            for pixels, labels in parts:
                own = keep[start : start + len(labels)]
                yield from _blocks(split, Images(pixels[own], labels[own]))
                start += len(labels)


def held_out(count: int, split: Literal["s4", "tay"]) -> NDArray[np.bool_]:
    """Which of the training images, in the order of the files, are the validation split (count,).

    Args:
        count: images; nine tenths of them, rounded down, stay in train.
        split: ``s4``: ``torch.utils.data.random_split`` with seed 42; ``tay``: the last tenth.
    """
    order = bits.shuffled(count, SPLIT_SEED) if split == "s4" else np.arange(count)
    held = np.zeros(count, dtype=np.bool_)
    held[order[count * 9 // 10 :]] = True
    return held


def _blocks(split: str, images: Images) -> Iterator[tuple[str, Rows]]:
    for start in range(0, len(images.labels), BLOCK):
        stop = start + BLOCK
        yield split, stored(Images(images.pixels[start:stop], images.labels[start:stop]))
