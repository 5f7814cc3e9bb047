"""CIFAR-10 in the hub's schema: put into the official order, and nothing else passes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image as Pillow

from tasks import cifar_hub
from tasks.cifar_hub import read_hub
from tasks.errors import DataError
from tests.tasks.pictures import BATCHES, PER_BATCH, batch

ORDER = ["data_batch_4", "data_batch_3", "data_batch_2", "data_batch_5", "data_batch_1"]
FIRST = 5


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


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 20 images are the official ones."""
    monkeypatch.setattr(cifar_hub, "BATCH", PER_BATCH)
    monkeypatch.setattr(cifar_hub, "FIRST", FIRST)
    monkeypatch.setattr(cifar_hub, "BLOCK", 7)
    for name in BATCHES:
        labels = bytes(batch(name)[b"labels"])
        pixels = batch(name)[b"data"][:FIRST].tobytes()
        digests = tuple(hashlib.sha256(each).hexdigest() for each in (labels, pixels))
        monkeypatch.setitem(cifar_hub.OFFICIAL, name, digests)


@pytest.fixture
def hub() -> dict[str, Dataset]:
    return {"train": hub_split(ORDER), "test": hub_split(["test_batch"])}


def test_the_batches_are_put_into_the_official_order(hub: dict[str, Dataset]) -> None:
    found = list(read_hub(hub))
    assert [split for split, _ in found] == ["train"] * 5 + ["test"]
    for name, (_, images) in zip(BATCHES, found, strict=True):
        assert images.labels.tolist() == batch(name)[b"labels"]
        assert (images.pixels.reshape(PER_BATCH, -1) == batch(name)[b"data"]).all()


def test_shuffled_images_are_refused(hub: dict[str, Dataset]) -> None:
    hub["train"] = hub["train"].shuffle(seed=0)
    with pytest.raises(DataError, match="no batch has the labels of the official data_batch_1"):
        list(read_hub(hub))


def test_a_missing_batch_is_refused(hub: dict[str, Dataset]) -> None:
    hub["train"] = hub_split(ORDER[1:])
    with pytest.raises(DataError, match="no batch has the labels of the official data_batch_4"):
        list(read_hub(hub))


def test_other_pixels_are_refused(hub: dict[str, Dataset]) -> None:
    images = pictures("test_batch")
    images[2].putpixel((3, 4), (1, 2, 3))
    hub["test"] = hub_split(["test_batch"], images)
    with pytest.raises(DataError, match="first images of test_batch have other pixels"):
        list(read_hub(hub))


@pytest.mark.parametrize("change", [lambda i: i.resize((16, 16)), lambda i: i.convert("L")])
def test_other_kinds_of_images_are_refused(hub: dict[str, Dataset], change: Any) -> None:
    hub["test"] = hub_split(["test_batch"], [change(image) for image in pictures("test_batch")])
    with pytest.raises(DataError, match=r"an image is (RGB|L), \(\d\d, \d\d\), not RGB"):
        list(read_hub(hub))


def test_other_columns_are_refused(hub: dict[str, Dataset]) -> None:
    hub["train"] = hub["train"].rename_column("img", "image")
    with pytest.raises(DataError, match="columns of train are image, label, not img and label"):
        list(read_hub(hub))


def test_every_official_batch_has_its_digests() -> None:
    assert list(cifar_hub.OFFICIAL) == BATCHES
    assert np.unique([list(each) for each in cifar_hub.OFFICIAL.values()]).size == 12
