"""Gratings: the law of the pictures, and what a task must keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chela.config.checking import checked
from chela.errors import ConfigError
from tasks.image.gratings import ORIENTATIONS, Gratings, GratingsConfig, draw
from tests.tasks.samples import ready

SIDE = 24


def task(folder: Path, **changes) -> Gratings:
    config = GratingsConfig(num_train=1500, num_val=100, num_test=50, **changes)
    return ready(Gratings(config, folder))


def test_without_noise_the_spectrum_shows_the_orientation() -> None:
    """Each picture's strongest wave runs along the direction that its class names."""
    images = draw(200, SIDE, 0.0, (3,))
    pictures = images.pixels[:, 0].reshape(-1, SIDE, SIDE).astype(float)
    waves = np.abs(np.fft.fft2(pictures - pictures.mean(axis=(1, 2), keepdims=True)))
    fy, fx = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij")
    strongest = waves.reshape(len(waves), -1).argmax(axis=1)
    angle = np.arctan2(fy.ravel()[strongest], fx.ravel()[strongest]) % np.pi
    wanted = np.pi * (images.labels % ORIENTATIONS) / ORIENTATIONS
    apart = np.abs((angle - wanted + np.pi / 2) % np.pi - np.pi / 2)
    assert apart.max() < np.pi / ORIENTATIONS / 2


def test_hard_stripes_have_two_levels_and_soft_ones_many() -> None:
    images = draw(200, SIDE, 0.0, (3,))
    levels = np.array([len(np.unique(picture)) for picture in images.pixels[:, 0]])
    hard = images.labels >= ORIENTATIONS
    assert levels[hard].max() <= 3  # the third where the sine is exactly zero
    assert levels[~hard].min() > 3


def test_the_same_seed_gives_the_same_data_in_splits_of_the_sizes(tmp_path: Path) -> None:
    one, again = task(tmp_path / "one"), task(tmp_path / "again")
    assert one.meta.fingerprint == again.meta.fingerprint
    assert task(tmp_path / "one", data_seed=1).meta.fingerprint != one.meta.fingerprint
    assert [len(one.split(name)) for name in ("train", "val", "test")] == [1500, 100, 50]
    assert set(one.train["label"]) == set(range(10))
    assert not one.is_padded
    assert one.sample("test", 0).shape == (12, 12)


def test_values_are_about_standard(tmp_path: Path) -> None:
    batch = next(iter(task(tmp_path).batches("val", 4)))
    assert batch.values.shape == (4, 144)
    assert abs(batch.values.mean()) < 0.5
    assert 0.5 < batch.values.std() < 2


@pytest.mark.parametrize("key, value", [("side", 4), ("noise", -1), ("num_val", 0)])
def test_a_bad_value_is_one_message(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"task.{key}={value}"):
        checked(GratingsConfig, {key: value}, "task")
