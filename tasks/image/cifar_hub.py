"""CIFAR-10 from the Hugging Face hub, brought into the official order and checked.

The hub keeps the batches in another order, and not the files that the official checksums are of.
So a batch is known by its 10,000 labels, and by the pixels of its first images: a dataset that was
shuffled, relabelled, resized or compressed with loss does not pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.image.cifar_files import CHANNELS, PIXELS
from tasks.image.pixels import Images

HUB = "uoft-cs/cifar10"
COLUMNS = ["img", "label"]
BATCH = 10_000  # images
FIRST = 100  # images of a batch whose pixels are compared
BLOCK = 1000  # images decoded at once
# The SHA-256 of each official batch's labels, one byte each, and of its first images' pixels.
OFFICIAL = {
    "data_batch_1": (
        "d829dbdf32167c9d7b3687cee66d92d80d46c441308b5aca0d11e8b69e27dac9",
        "33cfc4bc9ece505225a5cec14f12626b5ab5b2055651022f7cf31dc268bcc47e",
    ),
    "data_batch_2": (
        "5d18f7371ed35ea9ade77952fe958b0660a45cd6c8b8a8970030f21612cfd7e3",
        "011d508aea1e2e49931acf62ec467d97068cf51315bc4bad455cbf5d42218986",
    ),
    "data_batch_3": (
        "32cf77b0ee2e790b1c4384d2d82e42dc1571b87e67f6da8f444b2725b2973f65",
        "a7b3a0991444b7d08149086a728388a94119a75c79ca564b35c8260d30f0e76e",
    ),
    "data_batch_4": (
        "d2815e3f8f656272864920fc0edde56b04ec9cf81bf397c0dd3069f4aea51aeb",
        "3bc3c2892f3de262cf23a375796f62864dca578fde6948a0b9f3f9c3145a541f",
    ),
    "data_batch_5": (
        "2ddf3ab27d5d04409c94ce7b56849c243129c10de1058ae0bfe14c77e934800c",
        "c577eed1f889cf07d51db2a1815dc4cbc1cc9ff17ec1adf576a44beb1bb57d12",
    ),
    "test_batch": (
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        "8350a243de0d3a9b8a55d4ff25a8b8b51e6c922ef7e7d4c551dab437c47990b2",
    ),
}


def read_hub(splits: dict[str, Dataset]) -> Iterator[tuple[str, Images]]:
    """The batches as ``("train" or "test", images)``, in the official order.

    Args:
        splits: the hub's ``train`` and ``test``, columns ``img`` (an image) and ``label``.

    Raises:
        DataError: they are not the official images in batches.
    """
    starts: dict[str, tuple[str, int]] = {}
    for split, dataset in splits.items():
        if not set(COLUMNS) <= set(dataset.column_names):
            found = ", ".join(dataset.column_names)
            raise _other(f"the columns of {split} are {found}, not {' and '.join(COLUMNS)}")
        labels = np.array(dataset.select_columns("label")[:]["label"])
        for start in range(0, len(labels), BATCH):
            starts[_sha256(labels[start : start + BATCH].astype(np.uint8))] = (split, start)
    for name, (of_labels, of_pixels) in OFFICIAL.items():
        if of_labels not in starts:
            raise _other(f"no batch has the labels of the official {name}")
        split, start = starts[of_labels]
        images = _images(splits[split].select(range(start, start + BATCH)))
        if _sha256(images.pixels[:FIRST]) != of_pixels:
            raise _other(f"the first images of {name} have other pixels than the official ones")
        yield split, images


def _images(dataset: Dataset) -> Images:
    blocks, labels = [], []
    for batch in dataset.select_columns(COLUMNS).iter(BLOCK):
        blocks.append(np.stack([_pixels(image) for image in batch["img"]]))
        labels += batch["label"]
    return Images(np.concatenate(blocks), np.array(labels, dtype=np.int64))


def _pixels(image: Any) -> NDArray[np.uint8]:
    """A Pillow image as (3, 1024)."""
    pixels = np.asarray(image)
    if pixels.shape != (32, 32, CHANNELS) or pixels.dtype != np.uint8:
        raise _other(f"an image is {image.mode}, {image.size}, not RGB, (32, 32)")
    return pixels.transpose(2, 0, 1).reshape(CHANNELS, PIXELS)


def _sha256(array: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _other(what: str) -> DataError:
    return DataError(
        f"{HUB} on the hub is not the official CIFAR-10: {what}.\n"
        "  try: the official files, see data/README.md"
    )
