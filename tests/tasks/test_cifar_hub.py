"""CIFAR-10 in the hub's schema: put into the official order, and nothing else passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from tasks.errors import DataError
from tasks.image import cifar_hub
from tasks.image.cifar_hub import read_hub
from tests.tasks.small_images import (
    BATCHES,
    HUB_ORDER,
    PER_BATCH,
    batch,
    hub_split,
    make_official,
    pictures,
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 20 images are the official ones."""
    make_official(monkeypatch)
    monkeypatch.setattr(cifar_hub, "BLOCK", 7)


@pytest.fixture
def hub() -> dict[str, Dataset]:
    return {"train": hub_split(HUB_ORDER), "test": hub_split(["test_batch"])}


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
    hub["train"] = hub_split(HUB_ORDER[1:])
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
