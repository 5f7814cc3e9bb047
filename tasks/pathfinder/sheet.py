"""Sheets of generated Pathfinder pictures, to look at."""

from __future__ import annotations

from itertools import count

import numpy as np
from numpy.typing import NDArray

from tasks.pathfinder.footprints import all_tables
from tasks.pathfinder.generator import draw_block
from tasks.pathfinder.law import PathfinderLaw

GAP, GREY = 2, 90  # pixels between pictures, and their shade


def sheet(
    law: PathfinderLaw, seed: int = 0, rows: int = 4, columns: int = 8, zoom: int = 1
) -> NDArray[np.uint8]:
    """The first pictures of a seed: one contour (label 1) on the left, two (label 0) on the right.

    Args:
        law: what pictures there are.
        seed: see ``pathfinder_generator.generate``.
        rows: of pictures.
        columns: of pictures, an even number.
        zoom: pixels of the sheet for one of a picture.

    Returns:
        Grey values (height, width).

    Raises:
        ValueError: the number of columns is odd.
    """
    if columns % 2:
        raise ValueError(f"columns={columns} must be even: half of them for each label")
    half = rows * columns // 2
    tables = all_tables(law)
    found: dict[int, list[NDArray[np.uint8]]] = {0: [], 1: []}
    for index in count():
        block = draw_block(law, tables, seed, index)
        for label in (0, 1):
            found[label].extend(block.pixels[block.labels == label])
        if min(len(pictures) for pictures in found.values()) >= half:
            break
    side = law.resolution + GAP
    page = np.full((rows * side + GAP, columns * side + 3 * GAP), GREY, dtype=np.uint8)
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        right, inner = divmod(column, columns // 2)
        picture = found[1 - right][row * columns // 2 + inner]
        y, x = GAP + row * side, GAP + column * side + 2 * GAP * right
        page[y : y + law.resolution, x : x + law.resolution] = picture
    return page.repeat(zoom, axis=0).repeat(zoom, axis=1)
