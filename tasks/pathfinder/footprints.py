"""Everything of a Pathfinder picture that can be drawn or computed beforehand, as integers.

A paddle begins on a whole pixel and has one of finitely many directions: 360 whole degrees for the
first of a contour, and those towards the pixels of one small circle for all others. So all its
pictures, all steps from one paddle to the next and all odds of a turn are tables, and drawing
needs no floating point: the same pictures come out everywhere.

Coordinates are (y, x), angles go from x towards y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.pathfinder.contours import DEGREES, ODDS, WHITE, Bytes, Ints, Tables
from tasks.pathfinder.law import PathfinderLaw

FINER = 2  # a paddle is drawn on a canvas twice as fine, and reduced


def tables(law: PathfinderLaw, margin: int) -> Tables:
    """Draw and compute all tables of ``law`` with one of its margins."""
    circle = _circle(law.length + margin)
    towards = [math.atan2(y, x) for y, x in circle]
    first = [math.radians(degree - 180) for degree in range(DEGREES)]
    angles = first + towards
    # A first paddle is drawn from its tail on; all others from their head back to the pivot.
    drawn = first + [angle + math.pi for angle in towards]
    paddles = [_paddle(law, margin, angle) for angle in drawn]
    solid = np.stack([zone for _, zone in paddles])
    head = np.array([_translate(angle, law.length) for angle in first])
    back = [_translate(angle + math.pi, law.length + margin) for angle in first]
    rooms = _rooms(solid[:DEGREES], law.length + margin)
    return Tables(
        ink=np.stack([ink for ink, _ in paddles]),
        solid=solid,
        wide=np.stack([dilated(np.pad(zone, margin), disk(margin)) for zone in solid]),
        head=head,
        pivot=head + np.array(back),
        step=np.array([_translate(angle, law.length + 2 * margin) for angle in angles]),
        circle=circle,
        odds=_odds(np.array(angles), np.array(towards), law.continuity),
        away=np.array([_rounded(angle, law.seed_distance) for angle in first]),
        room=rooms[0],
        room_size=rooms[1],
        room_edges=rooms[2],
        marker=marker(law.radius),
    )


def _translate(angle: float, distance: int) -> tuple[int, int]:
    """A step, rounded up; nine digits, so that no machine's sine decides about a whole number."""
    y, x = distance * math.sin(angle), distance * math.cos(angle)
    return math.ceil(round(y, 9)), math.ceil(round(x, 9))


def _rounded(angle: float, distance: int) -> tuple[int, int]:
    """A step, rounded to the nearest pixel."""
    return round(round(distance * math.sin(angle), 9)), round(round(distance * math.cos(angle), 9))


def _circle(radius: int) -> Ints:
    """The pixels that a circle's points, one pixel apart, fall into (C, 2), in order."""
    points = np.arange(0, 2 * np.pi, 1 / radius)
    y, x = np.sin(points), np.cos(points)
    pixels = np.floor(np.round(radius * np.stack([y, x], axis=1), 9)).astype(np.int64)
    return np.unique(pixels, axis=0)


def _odds(last: NDArray[Any], towards: NDArray[Any], continuity: float) -> Ints:
    """cos^2 of ``continuity`` times the turn, zero from a right angle on (directions, C)."""
    turn = np.abs(last[:, None] - towards)
    turn = np.minimum(turn, 2 * np.pi - turn)
    bent = np.minimum(continuity * turn, np.pi / 2)
    return np.round(ODDS * np.cos(bent) ** 2).astype(np.int64)


def _rooms(solid: Bytes, half: int) -> tuple[Ints, Ints, Ints]:
    """The fully solid pixels of each first paddle, as offsets from its tail; number and edges.

    The published generator looks for room with the zone one pixel further down and right than the
    paddle is then drawn, cut to a square of 2 * half + 1; kept, since it decides which are free.

    It does so by a dilation (cv2.dilate), for which there is less than nothing outside of the
    picture. Where some pixel of the border has nothing but the outside under the zone, the search
    takes the result for a mistake and finds no place at all. With the thin paddles of 32 x 32 that
    is so for most directions, and few distractors come about: that is kept too.
    """
    middle = solid.shape[1] // 2
    rooms = []
    for zone in solid:
        offsets = np.argwhere(zone == WHITE) - middle + 1
        offsets = offsets[(np.abs(offsets) <= half).all(axis=1)]
        rooms.append(offsets if _reaches_inside(offsets) else offsets[:0])
    room = np.zeros((len(rooms), max(map(len, rooms)), 2), dtype=np.int64)
    for place, offsets in zip(room, rooms, strict=True):
        place[: len(offsets)] = offsets
    edges = [[*_ends(offsets[:, 0]), *_ends(offsets[:, 1])] for offsets in rooms]
    return room, np.array([len(offsets) for offsets in rooms]), np.array(edges)


def _reaches_inside(offsets: Ints) -> bool:
    """Whether some offset leads inside from each corner, and so from every pixel of the border."""
    inwards = [[down, right] for down in (1, -1) for right in (1, -1)]
    return all((offsets * way >= 0).all(axis=1).any() for way in inwards)


def _ends(values: Ints) -> tuple[int, int]:
    return (int(values.min()), int(values.max())) if len(values) else (0, 0)


def _paddle(law: PathfinderLaw, margin: int, angle: float) -> tuple[Bytes, Bytes]:
    """A paddle from the middle pixel in direction ``angle``, and its zone: both (S, S)."""
    half = law.length + math.ceil(law.thickness) + margin
    fine = line(FINER * half, _translate(angle, FINER * law.length), round(FINER * law.thickness))
    size = 2 * half + 1
    zone = dilated(fine, disk(FINER * margin))
    return reduced(WHITE * fine, size), reduced(WHITE * zone, size)


def line(half: int, end: tuple[int, int], width: int) -> Bytes:
    """A straight line of 0 and 1 on a canvas (2 * half + 1, 2 * half + 1).

    Args:
        half: the line begins in the middle, (half, half).
        end: where it ends, from there.
        width: in pixels; of width 1, it has one pixel in each row or column that it crosses.
    """
    canvas = np.zeros((2 * half + 1, 2 * half + 1), dtype=np.uint8)
    steps = max(abs(end[0]), abs(end[1]))
    if width == 1:
        for step in range(steps + 1):
            y, x = ((2 * step * part + steps) // (2 * steps) for part in end)  # the nearest
            canvas[half + y, half + x] = 1
        return canvas
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    square = end[0] ** 2 + end[1] ** 2
    along, across = y * end[0] + x * end[1], y * end[1] - x * end[0]  # times the line's length
    inside = (along >= 0) & (along <= square)
    # -width / 2 <= distance < width / 2, squared, in whole numbers
    near = 4 * across**2 < width**2 * square
    edge = (4 * across**2 == width**2 * square) & (across < 0)
    canvas[inside & (near | edge)] = 1
    return canvas


def disk(radius: int) -> NDArray[np.bool_]:
    """The pixels whose middle is within ``radius`` of the middle one (2 radius + 1, ...)."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(y**2 + x**2 <= radius**2)


def dilated(image: Bytes, shape: NDArray[np.bool_]) -> Bytes:
    """The maximum of a square image under ``shape`` (2 r + 1, 2 r + 1), held over each pixel."""
    radius = len(shape) // 2
    size = len(image)
    padded = np.pad(image, radius)
    shifted = [padded[y : y + size, x : x + size] for y, x in np.argwhere(shape)]
    return np.asarray(np.max(shifted, axis=0))


def marker(radius: float) -> Bytes:
    """A disc round the middle pixel; drawn round that pixel's first corner, as in the original."""
    half = math.ceil(radius) + 3  # 3: how far Lanczos reaches
    y, x = np.mgrid[: 2 * (2 * half + 1), : 2 * (2 * half + 1)] - 2 * half
    fine = (y**2 + x**2 <= (FINER * radius) ** 2).astype(np.uint8)
    return reduced(WHITE * fine, 2 * half + 1)


def reduced(image: Bytes, size: int) -> Bytes:
    """A square 8-bit image at a smaller size, by the Lanczos filter of three lobes (size, size).

    One direction after the other, each rounded to 8 bits, with coefficients of 22 binary digits:
    as Pillow does (libImaging/Resample.c), whose pictures the published data are.
    """
    weights = _lanczos(len(image), size)  # (size, len(image))
    across = _rounded_bytes(image.astype(np.int64) @ weights.T)
    return _rounded_bytes(weights @ across.astype(np.int64))


PRECISION = 22


def _rounded_bytes(sums: Ints) -> Bytes:
    return np.clip((sums + (1 << (PRECISION - 1))) >> PRECISION, 0, WHITE).astype(np.uint8)


def _lanczos(length: int, size: int) -> Ints:
    scale = length / size
    weights = np.zeros((size, length))
    for place, row in enumerate(weights):
        middle = (place + 0.5) * scale
        first = max(0, int(middle - 3 * scale + 0.5))
        last = min(length, int(middle + 3 * scale + 0.5))
        distance = (np.arange(first, last) - middle + 0.5) / scale
        lobe = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
        row[first:last] = lobe / lobe.sum()
    return np.round(weights * (1 << PRECISION)).astype(np.int64)


def all_tables(law: PathfinderLaw) -> Sequence[Tables]:
    """The tables of each margin of ``law``, in order."""
    return [tables(law, margin) for margin in law.margins]
