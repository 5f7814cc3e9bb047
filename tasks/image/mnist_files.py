"""MNIST from its four idx files, plain or gzipped, checked by what they unpack to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.image.pixels import CLASSES, Images
from tasks.sources.files import check_md5, opened, readable

PLACES = ("MNIST/raw", "mnist")  # the first is torchvision's
WHAT = (
    "the four files of MNIST, train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
    "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz (11.6 MB; LeCun, Cortes and Burges), "
    "unpacked or not"
)
# The MD5 of each official file, unpacked.
OFFICIAL = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
SPLITS = {"train": "train", "t10k": "test"}
SIDE = 28  # pixels
LARGEST = 1 << 30  # bytes of an unpacked file; the official ones have 47 MB at most


def read_files(folder: Path, is_official: bool) -> Iterator[tuple[str, Images]]:
    """``("train", images)`` and ``("test", images)``, in the order of the files.

    Args:
        folder: of the four files.
        is_official: whether the official checksums are demanded.

    Raises:
        DataError: a file is missing, another than the official one, or malformed.
    """
    for prefix, split in SPLITS.items():
        labels = _read(folder, f"{prefix}-labels-idx1-ubyte", is_official, shape=())
        images = _read(folder, f"{prefix}-images-idx3-ubyte", is_official, shape=(SIDE, SIDE))
        if len(images) != len(labels):
            raise _bad(
                folder,
                f"{prefix}-labels-idx1-ubyte has {len(labels):,} labels for {len(images):,} images",
            )
        if len(labels) == 0 or labels.max() >= CLASSES:
            what = "no label" if len(labels) == 0 else f"the label {labels.max()}"
            raise _bad(folder, f"{prefix}-labels-idx1-ubyte has {what}; they are 0 .. 9")
        yield split, Images(images.reshape(-1, 1, SIDE * SIDE), labels.astype(np.int64))


def _read(folder: Path, name: str, is_official: bool, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The numbers of an idx file (n, *shape)."""
    content = _unpacked(folder, name)
    if is_official:
        check_md5(content, OFFICIAL[name], folder / name)
    # Two zeros, 8 for bytes, the number of dimensions; then each as a big-endian 32-bit number.
    start = 4 + 4 * (1 + len(shape))
    if len(content) < start or content[:4] != bytes([0, 0, 8, 1 + len(shape)]):
        raise _bad(folder, f"{name} does not begin like an idx file of {1 + len(shape)} dimensions")
    count, *sides = np.frombuffer(content[4:start], dtype=">u4").tolist()
    numbers = np.frombuffer(content[start:], dtype=np.uint8)
    if tuple(sides) != shape or len(numbers) != count * int(np.prod(shape)):
        said = " x ".join(map(str, [count, *sides]))
        raise _bad(
            folder,
            f"{name} is truncated or another: {said} numbers by its first bytes, "
            f"{len(numbers):,} behind them",
        )
    return numbers.reshape(count, *shape)


def _unpacked(folder: Path, name: str) -> bytes:
    places = [folder / name, folder / f"{name}.gz"]
    with readable(folder):
        found = [place for place in places if place.exists()]
    if not found:
        raise _bad(folder, f"there is no {name}, nor {name}.gz")
    with opened(found[0], LARGEST) as stream:
        return stream.read()


def _bad(folder: Path, what: str) -> DataError:
    return DataError(f"{folder}: {what}.\n  try: fetch the file again")
