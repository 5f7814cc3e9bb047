"""Pathfinder pictures, drawn by compiled code from their paddles.

Each paddle is its table's footprint, stamped where ``contours`` placed it; two discs mark the tips.
Whatever is stamped first, the brighter one counts.

As in ``contours``, all that this code calls is in this file, constants too: numba, which keeps what
it compiled, would not see a change of another.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tasks.pathfinder.contours import Tables

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Image = NDArray[np.int32]

UNIT = 1000  # contrasts are whole thousandths
BRIGHTEST = 255  # of a picture's pixels


@njit(cache=True, nogil=True)
def draw(
    contours: Ints,
    distractors: Ints,
    found: Ints,
    markers: Ints,
    contrasts: tuple[int, int],
    tables: Tables,
    pixels: Bytes,
) -> None:
    """Draw pictures of one margin.

    Args:
        contours: (n, 2, length, 5) the paddles of the two long contours.
        distractors: (n, most, short length, 5) those of the distractors.
        found: (n,) how many distractors each picture has.
        markers: (n, 4) the places (y, x) of both discs, from the picture's corner.
        contrasts: of a long contour and of a distractor, in 1 / UNIT; a disc has UNIT.
        tables: of the law and this margin.
        pixels: (n, R, R) takes the pictures.
    """
    edge = tables.wide.shape[1]
    size = pixels.shape[1] + 2 * edge
    image = np.zeros((size, size), dtype=np.int32)
    for picture in range(len(pixels)):
        image.fill(0)
        for contour in contours[picture]:
            _draw_contour(image, tables.ink, contour, contrasts[0])
        for contour in distractors[picture, : found[picture]]:
            _draw_contour(image, tables.ink, contour, contrasts[1])
        origin_y, origin_x, terminal_y, terminal_x = markers[picture]
        _stamp(image, tables.marker, edge + origin_y, edge + origin_x, UNIT)
        _stamp(image, tables.marker, edge + terminal_y, edge + terminal_x, UNIT)
        _to_bytes(image, edge, pixels[picture])


@njit(cache=True, nogil=True)
def _draw_contour(image: Image, ink: Bytes, contour: Ints, contrast: int) -> None:
    for place in range(len(contour)):
        paddle = contour[place]
        _stamp(image, ink[paddle[0]], paddle[1], paddle[2], contrast)


@njit(cache=True, nogil=True)
def _stamp(image: Image, ink: Bytes, y: int, x: int, contrast: int) -> None:
    """Draw a footprint round a place; where there is something, the brighter one counts."""
    size, half = len(ink), len(ink) // 2
    for row in range(size):
        below = image[y - half + row, x - half : x - half + size]
        for column in range(size):
            below[column] = max(below[column], np.int32(ink[row, column]) * np.int32(contrast))


@njit(cache=True, nogil=True)
def _to_bytes(image: Image, edge: int, pixels: Bytes) -> None:
    """Scale the darkest pixel to 0 and the brightest to BRIGHTEST, rounded."""
    side = len(pixels)
    darkest = brightest = np.int64(image[edge, edge])
    for y in range(side):
        for x in range(side):
            darkest = min(darkest, np.int64(image[edge + y, edge + x]))
            brightest = max(brightest, np.int64(image[edge + y, edge + x]))
    span = brightest - darkest
    for y in range(side):
        for x in range(side):
            value = np.int64(image[edge + y, edge + x]) - darkest
            pixels[y, x] = (2 * BRIGHTEST * value + span) // (2 * span)
