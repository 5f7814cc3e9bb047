"""Image, sequential CIFAR-10 and sequential MNIST from small files in their official forms."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from tasks.base import TaskSpec
from tasks.errors import DataError
from tasks.image.task import Image, ImageConfig, held_out
from tasks.pictures import mirrored
from tests.tasks.samples import fingerprint_of, ready
from tests.tasks.small_images import (
    BATCHES,
    HUB_ORDER,
    batch,
    hub_split,
    make_official,
    mnist,
    write_cifar,
    write_mnist,
)

Make = Callable[..., Image]
OTHERS = {
    "image": {},
    "cifar": {"channels": "rgb"},
    "mnist": {"dataset": "mnist"},
}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    write_cifar(tmp_path / "data")
    write_mnist(tmp_path / "data" / "MNIST" / "raw")
    return tmp_path / "data"


@pytest.fixture
def image(data_dir: Path) -> Make:
    """``image("cifar", split="tay")``: a small task as a stand-in; not yet prepared."""

    def build(name: str = "image", **changes: Any) -> Image:
        place = changes.pop("data_dir", data_dir)
        config = {"name": name, "stand_in": "small-cifar", **OTHERS[name], **changes}
        return Image(ImageConfig(**config), place)

    return build


def train_rows() -> list[tuple[np.ndarray, int]]:
    """All training images of the small CIFAR-10 (32, 32, 3) with labels, in the files' order."""
    return [
        (row.reshape(3, 32, 32).transpose(1, 2, 0), label)
        for name in BATCHES[:5]
        for row, label in zip(batch(name)[b"data"], batch(name)[b"labels"], strict=True)
    ]


@pytest.mark.parametrize("split", ["s4", "tay"])
@pytest.mark.parametrize("name", ["image", "cifar"])
def test_a_sample_is_the_picture(image: Make, name: str, split: str) -> None:
    task = ready(image(name, split=split))
    assert [len(task.train), len(task.val), len(task.test)] == [90, 10, 20]
    held = held_out(100, split)  # type: ignore[arg-type]
    expected = {"train": np.flatnonzero(~held), "val": np.flatnonzero(held)}
    official = train_rows()
    for part, rows in expected.items():
        for place, row in enumerate(rows.tolist()):
            picture, label = official[row]
            if name == "image":
                picture = np.asarray(Pillow.fromarray(picture).convert("L"))
            assert (task.sample(part, place) == picture).all()
            assert task.split(part)[place]["label"] == label
    assert task.sample("test", 0).dtype == np.uint8
    assert task.test["label"][:] == batch("test_batch")[b"labels"]


def test_mnist_is_the_picture_too(image: Make) -> None:
    task = ready(image("mnist"))
    assert [len(task.train), len(task.val), len(task.test)] == [45, 5, 20]
    images, labels = mnist("t10k")
    for row in range(20):
        assert (task.sample("test", row) == images[row]).all()
    assert task.test["label"][:] == labels.tolist()


SPECS = [
    ("image", "continuous", TaskSpec("image", 10, 1024, None, 1, augment=mirrored), (8, 1024)),
    ("image", "symbols", TaskSpec("image", 10, 1024, 256, 1, augment=mirrored), (8, 1024)),
    ("cifar", "continuous", TaskSpec("cifar", 10, 1024, None, 3, augment=mirrored), (8, 1024, 3)),
    ("mnist", "continuous", TaskSpec("mnist", 10, 784, None, 1), (8, 784)),
    ("mnist", "symbols", TaskSpec("mnist", 10, 784, 256, 1), (8, 784)),
]


@pytest.mark.parametrize("name, kind, spec, shape", SPECS)
def test_from_files_to_batches(image: Make, name: str, kind: str, spec, shape) -> None:
    task = ready(image(name, input=kind))
    assert task.spec == spec
    assert (task.meta.source, task.meta.stand_in) == ("small-cifar", True)
    assert task.protocol == "heldout"
    assert fingerprint_of(task.folder) == task.meta.fingerprint
    for batch_ in list(task.batches("train", 8))[:2]:
        assert batch_.values.shape == shape
        assert batch_.lengths.tolist() == [spec.max_length] * 8
        assert batch_.values.dtype == (torch.int64 if kind == "symbols" else torch.float32)
    last = list(task.batches("test", 7))[-1]
    assert len(last.targets) == 6  # 20 in sevens: nothing dropped, nothing filled up


def test_symbols_are_the_levels(image: Make) -> None:
    task = ready(image(input="symbols"))
    assert task.folder == image().folder  # one preparation for both
    found = next(iter(task.batches("test", 7)))
    assert found.values[3].tolist() == task.sample("test", 3).reshape(-1).tolist()


def test_folder_tar_and_hub_are_the_same(
    image: Make, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data_dir / "cifar-10-batches-py"
    make_official(monkeypatch)
    from_folder = ready(image(stand_in=None)).meta
    with tarfile.open(data_dir / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name in reversed(BATCHES):
            archive.add(folder / name, arcname=f"cifar-10-batches-py/{name}")
    shutil.rmtree(folder)
    assert ready(image(stand_in=None)).meta == from_folder  # prepared data need no source
    shutil.rmtree(image(stand_in=None).folder)
    from_tar = ready(image(stand_in=None)).meta
    shutil.rmtree(image(stand_in=None).folder)
    (data_dir / "cifar-10-python.tar.gz").unlink()

    def load_dataset(repository: str, split: str) -> datasets.Dataset:
        assert repository == "uoft-cs/cifar10"
        return hub_split(HUB_ORDER if split == "train" else ["test_batch"])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    from_hub = ready(image(stand_in=None)).meta
    for meta in (from_tar, from_hub):
        assert meta.fingerprint == from_folder.fingerprint
        assert (meta.source, meta.stand_in) == ("official", False)


def test_other_pixels_need_a_name_of_their_own(image: Make, data_dir: Path) -> None:
    for name in ("image", "cifar", "mnist"):
        with pytest.raises(DataError, match=r"is not the official file(.|\n)*task\.stand_in="):
            image(name, stand_in=None).prepare_data()
        assert not image(name, stand_in=None).folder.exists()


@pytest.mark.parametrize(
    "name, parts",
    [
        ("image", ["none/cifar-10-batches-py", "170 MB", "uoft-cs/cifar10 on the Hugging Face"]),
        ("mnist", ["none/MNIST/raw", "none/mnist", "11.6 MB", "task=mnist"]),
    ],
)
def test_without_data_the_error_says_what_to_get(image: Make, tmp_path, name, parts) -> None:
    with pytest.raises(DataError) as caught:
        image(name, stand_in=None, data_dir=tmp_path / "none").prepare_data()
    for part in parts:
        assert part in str(caught.value)
    assert not (tmp_path / "none").exists()


def test_what_determines_the_data_names_the_folder(image: Make) -> None:
    folders = [
        image().folder,
        image(split="tay").folder,
        image(stand_in="other").folder,
        image("cifar").folder,
        image("mnist").folder,
    ]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"channels": "rgb"}, "that is task=cifar"),
        ({"dataset": "mnist"}, "that is task=mnist"),
        ({"dataset": "mnist", "channels": "rgb"}, "no such task"),
        ({"name": "cifar", "channels": "rgb", "input": "symbols"}, "symbols needs channels=grey"),
        ({"name": "mnist", "dataset": "mnist", "source": "hub"}, "hub is for CIFAR-10"),
        ({"source": "hub", "stand_in": "mine"}, "not for stand-ins"),
        ({"stand_in": "a/b"}, "letters, digits"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        ImageConfig(**changes)
