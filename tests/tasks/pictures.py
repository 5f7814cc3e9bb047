"""Small CIFAR-10 and MNIST in their official forms."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
PER_BATCH = 20


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
