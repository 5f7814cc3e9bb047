"""Where the token-wise kernels serve, and where padding makes them slower than torch.compile."""

from __future__ import annotations

import pytest
import torch

from chela.kernels.tokens import drawback, launching, limits, obstacle


def test_wide_tokens_are_an_obstacle():
    assert obstacle(limits.MAX_DIM) is None
    assert obstacle(513) == "D=513: the token-wise Triton kernels serve up to 512 channels"


@pytest.mark.parametrize("sizes", [(128, 256), (128, 64), (64, 32), (64, 128), (120, 250)])
def test_little_padding_is_none(sizes):
    assert drawback(*sizes) is None


@pytest.mark.parametrize(
    ("dim", "features", "padded"),
    [(160, 320, "256 x 320"), (80, 160, "128 x 192"), (160, 96, "256 x 128"), (8, 16, "16 x 16")],
)
def test_much_padding_is_a_drawback(dim, features, padded):
    assert drawback(dim, features) == (
        f"{dim} x {features} channels are padded to {padded}: torch.compile is faster"
    )


def test_wide_tokens_wait_for_a_measured_gain():
    assert drawback(256, 512) == "D=256: above 128 channels no gain over torch.compile was measured"


@pytest.mark.parametrize("dim", [1, 8, 16, 17, 80, 96, 120, 128])
def test_padding_is_what_a_launch_does(dim):
    """A chunk of the other side is as wide as CHUNK in most tiles."""
    tile = launching.Tile(64, limits.CHUNK, 4, 1)
    _, constants = launching.cut(torch.zeros(1, dim), "N", dim, tile)
    wide = -(-dim // constants["BN"]) * constants["BN"]
    idle = constants["BD"] * wide / dim**2 - 1
    assert (drawback(dim, dim) is None) == (idle <= limits.MAX_IDLE)
