"""An eye for Pathfinder pictures: from the grey values alone, are the discs on one contour?

It shares nothing with the generator. Discs are the brightest pixels, dashes the connected ones of
what is left; a dash is a straight stroke with two ends. From one disc's dash, a chain goes on from
end to end, over gaps hardly wider than a dash is long and without sharp turns, to the other's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DISC, DASH = 240, 90  # grey values from which on a pixel belongs to a disc, to a dash
RADIUS = 3.0  # of a disc
REACH = 6.7  # from a disc's middle to the end of the dash under it, at most
GAP = 9.5  # pixels, the widest between two dashes of a chain
BEND = 1.2  # radians, the sharpest turn from one dash to the next
SLACK = 1.0  # of the strain of a link: squared turns and width


class Sight(NamedTuple):
    one_contour: bool  # a chain of the right number of dashes leads from disc to disc
    closest: float  # pixels between the two nearest dashes; where they touch, 0


def look(picture: NDArray[np.uint8], dashes: int) -> Sight:
    """What is seen in a picture (H, W) of 128 x 128 whose long contours have ``dashes`` dashes."""
    discs = [part.mean(axis=0) for part in pieces(picture >= DISC) if len(part) > 8]
    assert len(discs) == 2, f"{len(discs)} discs"
    rows, columns = np.indices(picture.shape)
    covered = np.zeros(picture.shape, dtype=np.bool_)
    for y, x in discs:
        covered |= (rows - y) ** 2 + (columns - x) ** 2 <= (RADIUS + 0.8) ** 2
    parts = pieces((picture >= DASH) & ~covered)
    return Sight(_has_chain(parts, picture, discs, dashes), _closest(parts))


def pieces(is_ink: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The connected parts, each as its pixels (n, 2); corners connect."""
    left = {(int(y), int(x)) for y, x in np.argwhere(is_ink)}
    found = []
    for first in sorted(left):
        if first not in left:
            continue
        left.remove(first)
        part = [first]
        for y, x in part:
            for near in [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    part.append(near)
        found.append(np.array(part))
    return found


def _closest(parts: list[NDArray[np.int64]]) -> float:
    """The least distance between two parts; 0 where one is more than a dash (13 pixels)."""
    if max(map(len, parts)) > 15:
        return 0.0
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    pixels = np.concatenate(parts)
    square = ((pixels[:, None] - pixels) ** 2).sum(axis=2)
    return float(np.sqrt(square[owner[:, None] != owner].min()))


def _ends(part: NDArray[np.int64], grey: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The two ends of a dash (2, 2): along its main axis, weighted by brightness."""
    weight = grey[tuple(part.T)].astype(float)
    middle = np.average(part, axis=0, weights=weight)
    away = part - middle
    axis = np.linalg.eigh((away * weight[:, None]).T @ away)[1][:, -1]
    along = away @ axis
    return np.stack([middle + along.min() * axis, middle + along.max() * axis])


def _stubs(
    parts: list[NDArray[np.int64]], disc: NDArray[np.float64]
) -> tuple[list[int], list[NDArray[np.float64]]]:
    """What sticks out of a disc: each as a stroke from the disc's middle outwards."""
    numbers, strokes = [], []
    for number, part in enumerate(parts):
        distance = np.linalg.norm(part - disc, axis=1)
        if distance.min() <= RADIUS + 2.3 and distance.max() <= REACH:
            numbers.append(number)
            strokes.append(np.stack([disc, part[distance.argmax()]]))
    return numbers, strokes


def _has_chain(
    parts: list[NDArray[np.int64]],
    grey: NDArray[np.uint8],
    discs: list[NDArray[np.float64]],
    dashes: int,
) -> bool:
    whole = [_ends(part, grey) for part in parts]
    first, last = (_stubs(parts, disc) for disc in discs)
    # Every stroke in both directions, but those at the discs: away from the one, to the other.
    strokes = [*first[1], *whole, *(one[::-1] for one in whole), *(one[::-1] for one in last[1])]
    owner = np.array([*first[0], *2 * list(range(len(parts))), *last[0]])
    stroke = np.stack(strokes)  # (n, 2, 2)
    ahead = stroke[:, 1] - stroke[:, 0]  # (n, 2)
    bridge = stroke[None, :, 0] - stroke[:, None, 1]  # (n, n, 2)
    width = np.linalg.norm(bridge, axis=2)
    bends = [
        _angle(a, b)
        for a, b in ((ahead[:, None], ahead), (ahead[:, None], bridge), (bridge, ahead[None]))
    ]
    fits = (owner[:, None] != owner) & (width <= GAP) & (np.max(bends, axis=0) <= BEND)
    strain = np.where(fits, np.square(bends).sum(axis=0) + (width / GAP) ** 2, np.inf)
    # What goes on from one dash to another is, for both of them, hardly worse than the best.
    best = np.minimum(strain.min(axis=1)[:, None], strain.min(axis=0))
    links = fits & (strain <= best + SLACK)
    reached = np.zeros(len(stroke), dtype=np.bool_)
    reached[: len(first[0])] = True
    for _ in range(dashes - 1):
        reached = reached @ links
    return bool(reached[len(stroke) - len(last[0]) :].any())


def _angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    size = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.arccos(np.clip((a * b).sum(axis=-1) / np.maximum(size, 1e-9), -1, 1))
