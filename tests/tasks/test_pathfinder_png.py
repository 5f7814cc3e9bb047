"""Every kind of PNG: its grey levels are right, or it is refused by name."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from tasks.pathfinder.png import Unfit, grey_levels

SIDE = 8
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def chunk(name: bytes, content: bytes) -> bytes:
    end = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + end


PALETTE = chunk(b"PLTE", bytes(768))


def written(
    samples: np.ndarray, depth: int, kind: int, extra: bytes = b"", size: int | None = None
) -> bytes:
    """A PNG by its specification, samples (SIDE, SIDE * channels) of ``depth`` bits."""
    if depth == 16:
        lines = samples.astype(">u2").tobytes()
        rows = [lines[i : i + len(lines) // SIDE] for i in range(0, len(lines), len(lines) // SIDE)]
    else:
        shifts = np.arange(depth)[::-1]
        bits = (samples[..., None] >> shifts & 1).reshape(SIDE, -1).astype(np.uint8)
        rows = [np.packbits(row).tobytes() for row in bits]
    side = size or SIDE
    header = struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    whole = chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + whole


def noise(depth: int, kind: int) -> np.ndarray:
    return np.random.default_rng(depth).integers(0, 1 << depth, (SIDE, SIDE * CHANNELS[kind]))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_of_every_depth_is_scaled_to_bytes(depth: int) -> None:
    samples = noise(depth, 0)
    expected = np.rint(samples * 255 / ((1 << depth) - 1))
    assert (grey_levels(written(samples, depth, 0), SIDE) == expected).all()


def test_levels_of_sixteen_bits_keep_their_order() -> None:
    samples = np.linspace(0, 65535, SIDE * SIDE).astype(int).reshape(SIDE, SIDE)
    levels = grey_levels(written(samples, 16, 0), SIDE)
    assert (levels.min(), levels.max()) == (0, 255)
    assert (np.diff(levels.ravel().astype(int)) > 0).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_is_looked_up(depth: int) -> None:
    places = noise(depth, 3)
    levels = np.random.default_rng(0).integers(0, 256, 1 << depth).astype(np.uint8)
    palette = chunk(b"PLTE", np.repeat(levels, 3).tobytes())
    assert (grey_levels(written(places, depth, 3, palette), SIDE) == levels[places]).all()


def test_colours_are_weighed() -> None:
    samples = noise(8, 2)
    red, green, blue = samples.reshape(SIDE, SIDE, 3).transpose(2, 0, 1)
    expected = np.rint(0.299 * red + 0.587 * green + 0.114 * blue)
    assert np.abs(grey_levels(written(samples, 8, 2), SIDE) - expected).max() <= 1
    grey = np.repeat(samples[:, ::3], 3, axis=1)
    assert (grey_levels(written(grey, 8, 2), SIDE) == samples[:, ::3]).all()


@pytest.mark.parametrize("kind", [4, 6])
def test_what_is_opaque_everywhere_is_read(kind: int) -> None:
    samples = noise(8, kind).reshape(SIDE, SIDE, -1)
    samples[...] = samples[:, :, :1]
    samples[:, :, -1] = 255
    assert (grey_levels(written(samples.reshape(SIDE, -1), 8, kind), SIDE) == samples[..., 0]).all()


@pytest.mark.parametrize(
    "depth, kind, extra, what",
    [
        (8, 4, b"", r"grey with transparency \(LA\) of 8 bits and partly transparent"),
        (8, 6, b"", r"colour with transparency \(RGBA\) of 8 bits and partly transparent"),
        (16, 4, b"", r"grey with transparency \(LA\) of 16 bits"),
        (16, 6, b"", r"colour with transparency \(RGBA\) of 16 bits"),
        (16, 2, b"", r"colour \(RGB\) of 16 bits"),
    ],
)
def test_what_has_no_one_grey_form_is_refused_by_name(depth, kind, extra, what) -> None:
    with pytest.raises(Unfit, match=what):
        grey_levels(written(noise(depth, kind), depth, kind, extra), SIDE)


@pytest.mark.parametrize(
    "depth, kind, transparency, name",
    [
        (1, 0, b"\0\1", "grey of 1 bits"),
        (2, 0, b"\0\2", "grey of 2 bits"),
        (4, 0, b"\0\7", "grey of 4 bits"),
        (8, 0, b"\1\7", "grey of 8 bits"),  # the bits beyond the depth say nothing
        (16, 0, b"\1\7", "grey of 16 bits"),
        (8, 2, b"\0\7\0\7\0\7", r"colour \(RGB\) of 8 bits"),
        (2, 3, b"\xff\xff\x80", "palette of 2 bits"),
        (8, 3, b"\xff" * 7 + b"\0", "palette of 8 bits"),
        (8, 3, b"\xff\xff\xff", None),
    ],
)
def test_only_what_a_transparent_pixel_shows_is_missing(depth, kind, transparency, name) -> None:
    """A file may name a colour that is clear, or how opaque each is, and have no such pixel."""
    palette = chunk(b"PLTE", np.repeat(np.arange(256).astype(np.uint8), 3).tobytes()) * (kind == 3)
    extra = palette + chunk(b"tRNS", transparency)
    opaque = np.zeros((SIDE, SIDE * CHANNELS[kind]), int)
    plain = grey_levels(written(opaque, depth, kind, palette), SIDE)
    assert (grey_levels(written(opaque, depth, kind, extra), SIDE) == plain).all()
    if name is not None:
        clear = opaque.copy()
        clear[0, : CHANNELS[kind]] = {1: 1, 2: 2, 16: 263}.get(depth, 7)
        with pytest.raises(Unfit, match=f"{name} and partly transparent"):
            grey_levels(written(clear, depth, kind, extra), SIDE)


def test_a_picture_of_another_size_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(Unfit, match="has 14,000 x 14,000 pixels, not 8 x 8"):
        grey_levels(written(noise(8, 0), 8, 0, size=14_000), SIDE)


@pytest.mark.parametrize("depth, kind", [(3, 0), (4, 2), (8, 5), (0, 0)])
def test_a_kind_that_does_not_exist_is_no_png(depth: int, kind: int) -> None:
    content = bytearray(written(noise(8, 0), 8, 0))
    content[24:26] = [depth, kind]
    with pytest.raises(Unfit, match="no whole PNG"):
        grey_levels(bytes(content), SIDE)
