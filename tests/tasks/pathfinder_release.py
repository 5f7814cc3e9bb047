"""A small release of Pathfinder pictures in the official form, as a folder or as a tar."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

SET = "curv_contour_length_14"


def png(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def release(folders: int = 3, each: int = 10, side: int = 32, seed: int = 0) -> dict[str, bytes]:
    """The files of a set by name, without what stands before ``imgs`` and ``metadata``.

    Picture i has its number in its first pixels, and label i * 7 % 3 % 2.
    """
    files = {}
    noise = np.random.default_rng(seed)
    for folder in range(folders):
        lines = []
        for place in range(each):
            number = folder * each + place
            pixels = noise.integers(0, 256, (side, side)).astype(np.uint8)
            pixels[0, :2] = divmod(number, 256)
            files[f"imgs/{folder}/sample_{place}.png"] = png(pixels)
            label = number * 7 % 3 % 2
            rest = "1.0 14 4.666666666666667 2 0.5 1 1"
            lines.append(f"imgs/{folder} sample_{place}.png {place} {label} {rest}\n")
        files[f"metadata/{folder}.npy"] = "".join(lines).encode()
    return files


def unpacked(files: dict[str, bytes], root: Path) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def packed(files: dict[str, bytes], path: Path, prefix: str, seed: int = 0) -> Path:
    """A gzipped tar, its members in a random order, and with others that must not be read."""
    names = sorted(files)
    random.Random(seed).shuffle(names)
    others = {
        "lra_release/listops-1000/basic_train.tsv": b"no",
        "lra_release/pathfinder32/curv_contour_length_14/metadata/0.npy": b"a trap",
        "lra_release/lra_release/pathfinder32/curv_baseline/metadata/0.npy": b"another set",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in [*others.items(), *((prefix + name, files[name]) for name in names)]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
