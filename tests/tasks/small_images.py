"""Small CIFAR-10 and MNIST in their official forms."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from numpy.typing import NDArray
from PIL import Image as Pillow

from tasks.image import cifar_files, cifar_hub

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
PER_BATCH = 20
HUB_ORDER = ["data_batch_4", "data_batch_3", "data_batch_2", "data_batch_5", "data_batch_1"]


def batch(name: str) -> dict[bytes, Any]:
    """A batch of 20 images, as the official ones are when Python 3 loads them."""
    random = np.random.default_rng(BATCHES.index(name))
    return {
        b"batch_label": name.encode(),
        b"labels": random.integers(0, 10, PER_BATCH).tolist(),
        b"data": random.integers(0, 256, (PER_BATCH, 3072), dtype=np.uint8),
        b"filenames": [b"%d.png" % number for number in range(PER_BATCH)],
    }


def write_cifar(data_dir: Path) -> Path:
    """``cifar-10-batches-py``, as the archive unpacks."""
    folder = data_dir / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in BATCHES:
        (folder / name).write_bytes(pickle.dumps(batch(name), protocol=2))
    (folder / "readme.html").write_text("<html></html>")
    return folder


def pictures(name: str) -> list[Pillow.Image]:
    pixels = batch(name)[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return [Pillow.fromarray(picture) for picture in pixels]


def hub_split(names: list[str], images: list[Pillow.Image] | None = None) -> Dataset:
    """Batches one after the other, PNG inside, as the hub's files have it."""
    columns: dict[str, list[Any]] = {
        "img": images or [picture for name in names for picture in pictures(name)],
        "label": [label for name in names for label in batch(name)[b"labels"]],
    }
    names_of_classes = [f"class {number}" for number in range(10)]
    features = Features({"img": ImageFeature(), "label": ClassLabel(names=names_of_classes)})
    return Dataset.from_dict(columns, features)


def make_official(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the small batches have the official checksums, as files and on the hub."""
    monkeypatch.setattr(cifar_hub, "BATCH", PER_BATCH)
    monkeypatch.setattr(cifar_hub, "FIRST", 5)
    for name in BATCHES:
        content = batch(name)
        file = hashlib.md5(pickle.dumps(content, protocol=2)).hexdigest()
        labels = hashlib.sha256(bytes(content[b"labels"])).hexdigest()
        pixels = hashlib.sha256(content[b"data"][:5].tobytes()).hexdigest()
        monkeypatch.setitem(cifar_files.OFFICIAL, name, file)
        monkeypatch.setitem(cifar_hub.OFFICIAL, name, (labels, pixels))


def mnist(prefix: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (n, 28, 28) and labels (n,) of ``train`` or ``t10k``."""
    random = np.random.default_rng(len(prefix))
    count = {"train": 50, "t10k": 20}[prefix]
    images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, random.integers(0, 10, count, dtype=np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    """An idx file: two zeros, 8 for bytes, the dimensions, each size, the numbers."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write_mnist(folder: Path, packed: bool = False) -> Path:
    """The four files, plain or gzipped."""
    folder.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        images, labels = mnist(prefix)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx(array)
            file = folder / f"{prefix}-{name}-ubyte"
            if packed:
                file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(content))
            else:
                file.write_bytes(content)
    return folder
