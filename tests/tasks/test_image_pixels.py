"""Pixels: grey as Pillow's, the order of storage, S4's standardisation."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from tasks.image.pixels import Images, Standardised, grey, stored
from tasks.loader import Encoding

RANDOM = np.random.default_rng(0)


def test_grey_is_pillows_mode_l() -> None:
    pixels = RANDOM.integers(0, 256, (520, 3, 1024), dtype=np.uint8)
    levels = np.arange(256)
    pixels[0] = np.stack([levels, levels, levels]).repeat(4, axis=1)  # grey stays as it is
    pixels[1, :, :8] = [[0, 255] * 4, [0, 0, 255, 255] * 2, [0] * 4 + [255] * 4]  # all corners
    for image, found in zip(pixels, grey(pixels), strict=True):
        picture = Pillow.fromarray(image.reshape(3, 32, 32).transpose(1, 2, 0))
        assert (np.asarray(picture.convert("L")) == found.reshape(32, 32)).all()
    assert (grey(pixels)[0, 0] == pixels[0, 0]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_is_the_picture_line_by_line(channels: int) -> None:
    pixels = RANDOM.integers(0, 256, (4, channels, 6), dtype=np.uint8)
    rows = stored(Images(pixels, np.arange(4)))
    assert rows.values.dtype == np.uint8
    assert rows.lengths.tolist() == [6 * channels] * 4
    assert rows.labels.tolist() == [0, 1, 2, 3]
    expected = [
        int(pixels[image, channel, place])
        for image in range(4)
        for place in range(6)
        for channel in range(channels)
    ]
    assert rows.values.tolist() == expected


@pytest.mark.parametrize(
    "mean, std",
    [((122.6 / 255,), (61 / 255,)), ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))],
)
def test_levels_are_standardised_as_s4_does(mean, std) -> None:
    pixels = RANDOM.integers(0, 256, (5, len(mean), 256), dtype=np.uint8)
    pixels[0] = np.arange(256)
    encoding = Encoding(Standardised(mean, std), channels=len(mean))
    rows = stored(Images(pixels, np.zeros(5, np.int64)))
    values, lengths, *_ = encoding.read(rows, list(range(5)))
    # torchvision's ToTensor and Normalize in plain torch: (B, C, L), then channels last
    scaled = torch.from_numpy(pixels).to(torch.float32).div(255)
    expected = (scaled - torch.tensor(mean)[:, None]) / torch.tensor(std)[:, None]
    expected = expected[:, 0] if len(mean) == 1 else expected.transpose(1, 2)
    assert values.dtype == torch.float32
    assert values.is_contiguous()
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-6)
    assert lengths.tolist() == [256] * 5
    assert lengths.dtype == torch.int64


def test_the_encoding_goes_to_reading_processes() -> None:
    encode = Standardised((0.5,), (0.25,))
    assert pickle.loads(pickle.dumps(encode)) == encode
