"""MNIST's idx files, plain and gzipped."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import DataError
from tasks.image import mnist_files
from tasks.image.mnist_files import read_files
from tasks.image.task import Image, ImageConfig
from tests.tasks.small_images import idx, mnist, write_mnist

IMAGES, LABELS = mnist("t10k")


@pytest.mark.parametrize("packed", [False, True])
def test_the_images_are_read_in_order(tmp_path: Path, packed: bool) -> None:
    found = dict(read_files(write_mnist(tmp_path / "m", packed), is_official=False))
    assert list(found) == ["train", "test"]
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = mnist(prefix)
        assert (found[split].pixels == images.reshape(-1, 1, 784)).all()
        assert found[split].labels.tolist() == labels.tolist()


@pytest.mark.parametrize("packed", [False, True])
def test_official_checksums_are_of_the_content(tmp_path: Path, monkeypatch, packed: bool) -> None:
    folder = write_mnist(tmp_path / "m", packed)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte is not the official"):
        list(read_files(folder, is_official=True))
    for prefix in ("train", "t10k"):
        for name, array in zip(("images-idx3", "labels-idx1"), mnist(prefix), strict=True):
            found = hashlib.md5(idx(array)).hexdigest()
            monkeypatch.setitem(mnist_files.OFFICIAL, f"{prefix}-{name}-ubyte", found)
    assert len(list(read_files(folder, is_official=True))) == 2


def replaced(array: np.ndarray, place: int, value: int) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    "file, content, what",
    [
        ("t10k-labels-idx1-ubyte", b"", "does not begin like an idx file of 1 dim"),
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\x01", "does not begin like"),
        ("t10k-labels-idx1-ubyte", idx(IMAGES), "does not begin like"),
        ("t10k-images-idx3-ubyte", idx(LABELS), "does not begin like an idx file of 3 dim"),
        ("t10k-images-idx3-ubyte", idx(IMAGES)[:-1], "truncated or another: 20 x 28 x 28 num"),
        ("t10k-images-idx3-ubyte", idx(IMAGES) + b"x", r"15,681 behind"),
        ("t10k-images-idx3-ubyte", idx(IMAGES[:, :27]), "20 x 27 x 28"),
        ("t10k-images-idx3-ubyte", idx(IMAGES[1:]), "20 labels for 19 images"),
        ("t10k-labels-idx1-ubyte", idx(replaced(LABELS, 7, 10)), "has the label 10; they are 0"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, file: str, content: bytes, what: str) -> None:
    folder = write_mnist(tmp_path / "m")
    (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=what):
        list(read_files(folder, is_official=False))


def test_no_image_at_all_is_an_error(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path / "m")
    (folder / "train-images-idx3-ubyte").write_bytes(idx(IMAGES[:0]))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:0]))
    with pytest.raises(DataError, match="has no label"):
        list(read_files(folder, is_official=False))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-20],
        lambda content: b"",
        lambda content: b"<html>",
    ],
    ids=["truncated", "empty", "html"],
)
def test_a_bad_gz_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = write_mnist(tmp_path / "m", packed=True) / "train-images-idx3-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte(\.gz)? (is truncated|does not)"):
        list(read_files(file.parent, is_official=False))


def test_a_gz_that_a_browser_unpacked_is_read(tmp_path: Path) -> None:
    file = write_mnist(tmp_path / "m", packed=True) / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.decompress(file.read_bytes()))
    assert len(list(read_files(file.parent, is_official=False))) == 2


def test_what_unpacks_to_more_than_any_such_file_is_refused(tmp_path: Path, monkeypatch) -> None:
    """Before it is in memory: a megabyte of gzip can hold a gigabyte of zeros."""
    monkeypatch.setattr(mnist_files, "LARGEST", 40_000)
    file = write_mnist(tmp_path / "m", packed=True) / "train-images-idx3-ubyte.gz"
    assert len(list(read_files(file.parent, is_official=False))) == 2
    file.write_bytes(gzip.compress(bytes(40_001)))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz has more than 40,000 bytes"):
        list(read_files(file.parent, is_official=False))


def test_a_set_too_small_for_its_splits_is_named(tmp_path: Path) -> None:
    """One image to train with is the validation split, and none is left."""
    folder = write_mnist(tmp_path / "mnist")
    for name, array in zip(("images-idx3", "labels-idx1"), mnist("train"), strict=True):
        (folder / f"train-{name}-ubyte").write_bytes(idx(array[:1]))
    config = ImageConfig(name="mnist", dataset="mnist", stand_in="mine")
    task = Image(config, tmp_path)
    with pytest.raises(DataError, match=r"mnist \(mine\) has no sample to train with"):
        task.prepare_data()
    assert not task.folder.exists()


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """Reading it would wait for ever."""
    file = write_mnist(tmp_path / "m") / "train-images-idx3-ubyte"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match="no regular file"):
        list(read_files(file.parent, is_official=False))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path / "m")
    (folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=r"no t10k-images-idx3-ubyte, nor t10k-.*\.gz"):
        list(read_files(folder, is_official=False))
