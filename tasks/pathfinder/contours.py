"""The contours of Pathfinder pictures, grown by compiled code from the tables of one margin.

The algorithm is that of the published generator (drewlinsley/pathfinder, snakes2.py): two long
contours grow in turn on one shared mask, then short distractors on what is left, then two tips are
chosen, one of a contour and one of the same (label 1) or of the other (label 0). All arithmetic is
in whole numbers. ``drawing`` makes pictures of them.

A paddle is an array (5,): its direction, the place (y, x) that its footprint is centred on (a first
paddle's tail, any other's head), and its pivot (y, x), where it meets the one before.

numba compiles on the first call and keeps the result beside this file or, where that folder cannot
be written, in the user's cache. It looks at no other file to see whether the result still holds:
so all that this code calls is in this file, constants too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Mask = Bytes
State = NDArray[np.uint64]  # (1,) of the random numbers

# The scales of the tables.
WHITE = 255
DEGREES = 360  # first directions; those of all later paddles follow them
# Odds are whole numbers of 1 / ODDS: a circle's sum times WHITE stays below 2**32, which is what a
# 32-bit random word can choose from.
ODDS = 1 << 16

TRIES = 3  # of a first paddle, and of a next one
DISTRACTOR_TRIES = 5
GUESSES = 64  # places tried blindly for a distractor before all free ones are listed
FREE = 76  # the most that a free pixel is taken: 0.3 of WHITE
CLASH = 459  # two zones clash where their sum is 1.8 of WHITE or more
LEAST_ODDS = ODDS * WHITE // 10_000  # no way on: all odds together below 1e-4
CROWDED = 100  # distractors stop when less than 1 / CROWDED of the pixels is free
RESTARTS = 100_000  # of the two long contours, after which a law is given up

FACTS = ("restarts", "distractors", "origin y", "origin x", "terminal y", "terminal x")


class Tables(NamedTuple):
    """The tables of one law and margin.

    Direction d is d - 180 degrees for d < 360, else that from a pivot to circle pixel d - 360.
    """

    ink: Bytes  # (directions, S, S) a paddle from its first pixel, which is the middle one ...
    solid: Bytes  # (directions, S, S) ... and the zone round it that others keep out of
    wide: Bytes  # (directions, W, W) that zone, dilated by the margin
    head: Ints  # (360, 2) from a first paddle's tail to its head
    pivot: Ints  # (360, 2) from a first paddle's tail to its pivot
    step: Ints  # (directions, 2) from a paddle's pivot to that of the next
    circle: Ints  # (C, 2) from a pivot to where the next paddle may end
    odds: Ints  # (directions, C) of each end, after a paddle of some direction
    away: Ints  # (360, 2) from the first tail to the second, by degrees
    room: Ints  # (360, P, 2) pixels that must be free for a first paddle, from its tail
    room_size: Ints  # (360,) how many of them count; 0: no place is found for this direction
    room_edges: Ints  # (360, 4) the first and last row, the first and last column of them
    marker: Bytes  # (M, M) a disc round the middle pixel


class Scene(NamedTuple):
    """The numbers of a law that decide where paddles are, with one of its margins."""

    margin: int
    resolution: int
    frame: int
    seed_distance: int
    contour_length: int
    distractor_length: int
    distractors: int


class Board(NamedTuple):
    """What is grown on. The picture is in the middle, so that no footprint leaves the canvas."""

    edge: int  # where the picture begins; all places are counted from the canvas's corner
    end: int  # where it ends
    taken: Mask  # (size, size) how much of each pixel is taken
    near: Mask  # (size, size) the most that is taken within the margin: ``taken``, dilated


@njit(cache=True, nogil=True)
def grow(
    keys: State,
    labels: Ints,
    scene: Scene,
    tables: Tables,
    contours: Ints,
    distractors: Ints,
    facts: Ints,
) -> int:
    """Find the paddles of a picture for each key, as far as its law allows.

    Args:
        keys: (n,) each determines its picture, together with ``scene`` and ``tables``.
        labels: (n,) 0 or 1.
        scene: the law.
        tables: of the law and one margin.
        contours: (n, 2, length, 5) takes the paddles of both long contours.
        distractors: (n, most, short length, 5) takes those of the distractors that found room.
        facts: (n, 6) takes what ``FACTS`` names.

    Returns:
        Of how many: n, or fewer where the contours of one did not fit in RESTARTS tries.
    """
    edge = tables.wide.shape[1]
    size = scene.resolution + 2 * edge
    taken = np.zeros((size, size), dtype=np.uint8)
    board = Board(edge, edge + scene.resolution, taken, np.zeros_like(taken))
    state = np.zeros(1, dtype=np.uint64)
    for picture in range(len(keys)):
        state[0] = keys[picture]
        restarts = 0
        its = contours[picture]
        while not _two_contours(state, board, scene, tables, its):
            restarts += 1
            if restarts == RESTARTS:
                return picture
        found = _distractors(state, board, scene, tables, distractors[picture])
        one = _below(state, 2)
        other = one if labels[picture] == 1 else 1 - one
        origin, terminal = its[one, 0], its[other, scene.contour_length - 1]
        facts[picture, 0], facts[picture, 1] = restarts, found
        facts[picture, 2], facts[picture, 3] = origin[1] - edge, origin[2] - edge
        facts[picture, 4], facts[picture, 5] = terminal[1] - edge, terminal[2] - edge
    return len(keys)


@njit(cache=True, nogil=True)
def _word(state: State) -> np.uint64:
    """The next 64 random bits: SplitMix64 (Steele, Lea & Flood 2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    word = state[0]
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@njit(cache=True, nogil=True)
def _below(state: State, limit: int) -> int:
    """A random number in 0 .. limit - 1, uniform up to limit / 2**32."""
    return int(np.int64(((_word(state) >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)))


@njit(cache=True, nogil=True)
def _two_contours(state: State, board: Board, scene: Scene, tables: Tables, contours: Ints) -> bool:
    """Grow both long contours on an empty board, (2, length, 5); False where one got stuck."""
    _clear(board, scene)
    first, second = contours[0], contours[1]
    if not _first_seed(state, board, scene, tables, first[0]):
        return False
    if not _second_seed(state, board, scene, tables, first[0], second[0]):
        return False
    for place in range(1, scene.contour_length):
        for number in range(2):
            contour = contours[number]
            if not _extend(state, board, tables, contour[place - 1], contour[place]):
                return False
    # The first contour's last paddle never joins the mask: so it is in the published generator.
    _take(board, tables, second[scene.contour_length - 1])
    return True


@njit(cache=True, nogil=True)
def _clear(board: Board, scene: Scene) -> None:
    """Nothing is taken but the frame."""
    for mask, width in ((board.taken, scene.frame), (board.near, scene.frame + scene.margin)):
        mask.fill(0)
        for y in range(board.edge, board.end):
            inside = board.edge + width <= y < board.end - width
            mask[y, board.edge : board.edge + width if inside else board.end] = WHITE
            mask[y, board.end - width : board.end] = WHITE


@njit(cache=True, nogil=True)
def _first_seed(state: State, board: Board, scene: Scene, tables: Tables, paddle: Ints) -> bool:
    """A first paddle well inside the empty picture, in the middle of which all places are free."""
    degree = _below(state, DEGREES)
    if tables.room_size[degree] == 0:
        return False
    low_y, high_y, low_x, high_x = tables.room_edges[degree]
    margin = 2 * scene.seed_distance
    top, left = board.edge + margin - low_y, board.edge + margin - low_x
    rows = board.end - margin - high_y - top
    columns = board.end - margin - high_x - left
    if rows <= 0 or columns <= 0:
        return False
    y, x = top + _below(state, rows), left + _below(state, columns)
    return _place(board, tables, degree, y, x, paddle)


@njit(cache=True, nogil=True)
def _second_seed(
    state: State, board: Board, scene: Scene, tables: Tables, first: Ints, paddle: Ints
) -> bool:
    """A first paddle at ``seed_distance`` from the other contour's, in any direction."""
    for _ in range(TRIES):
        degree, direction = _below(state, DEGREES), _below(state, DEGREES)
        y, x = first[1] + tables.away[direction, 0], first[2] + tables.away[direction, 1]
        if _place(board, tables, degree, y, x, paddle):
            return True
    return False


@njit(cache=True, nogil=True)
def _place(board: Board, tables: Tables, degree: int, y: int, x: int, paddle: Ints) -> bool:
    """Make a first paddle from its tail, unless its head or pivot is outside the picture."""
    pivot_y, pivot_x = y + tables.pivot[degree, 0], x + tables.pivot[degree, 1]
    paddle[0], paddle[1], paddle[2], paddle[3], paddle[4] = degree, y, x, pivot_y, pivot_x
    head_y, head_x = y + tables.head[degree, 0], x + tables.head[degree, 1]
    return _inside(board, head_y, head_x) and _inside(board, pivot_y, pivot_x)


@njit(cache=True, nogil=True)
def _inside(board: Board, y: int, x: int) -> bool:
    return board.edge <= y < board.end and board.edge <= x < board.end


@njit(cache=True, nogil=True)
def _extend(state: State, board: Board, tables: Tables, last: Ints, paddle: Ints) -> bool:
    """Make the paddle after ``last``, whose zone then joins the mask; False where none fits."""
    y, x = last[3] + tables.step[last[0], 0], last[4] + tables.step[last[0], 1]
    ends = len(tables.circle)
    odds = np.zeros(ends, dtype=np.int64)
    total = 0
    for end in range(ends):
        turn = tables.odds[last[0], end]
        if turn:
            end_y, end_x = y + tables.circle[end, 0], x + tables.circle[end, 1]
            if _inside(board, end_y, end_x):
                odds[end] = turn * (WHITE - np.int64(board.near[end_y, end_x]))
                total += odds[end]
    if total < LEAST_ODDS:
        return False
    for _ in range(TRIES):
        left, end = _below(state, total), 0
        while left >= odds[end]:
            left -= odds[end]
            end += 1
        end_y, end_x = y + tables.circle[end, 0], x + tables.circle[end, 1]
        if not _clashes(board.taken, tables.solid[DEGREES + end], end_y, end_x):
            _take(board, tables, last)
            paddle[0], paddle[1], paddle[2] = DEGREES + end, end_y, end_x
            paddle[3], paddle[4] = y, x
            return True
    return False


@njit(cache=True, nogil=True)
def _clashes(taken: Mask, solid: Mask, y: int, x: int) -> bool:
    size, half = len(solid), len(solid) // 2
    for row in range(size):
        below, worst = taken[y - half + row, x - half : x - half + size], np.uint16(0)
        for column in range(size):
            worst = max(worst, np.uint16(below[column]) + np.uint16(solid[row, column]))
        if worst >= CLASH:
            return True
    return False


@njit(cache=True, nogil=True)
def _take(board: Board, tables: Tables, paddle: Ints) -> None:
    """A paddle's zone joins the mask."""
    _raise_to(board.taken, tables.solid[paddle[0]], paddle[1], paddle[2])
    _raise_to(board.near, tables.wide[paddle[0]], paddle[1], paddle[2])


@njit(cache=True, nogil=True)
def _raise_to(mask: Mask, zone: Mask, y: int, x: int) -> None:
    size, half = len(zone), len(zone) // 2
    for row in range(size):
        below = mask[y - half + row, x - half : x - half + size]
        for column in range(size):
            below[column] = max(below[column], zone[row, column])


@njit(cache=True, nogil=True)
def _distractors(state: State, board: Board, scene: Scene, tables: Tables, contours: Ints) -> int:
    """Grow the distractors that find room, (most, length, 5): how many."""
    found = 0
    taken, near = np.empty_like(board.taken), np.empty_like(board.near)
    _copy(board.taken, taken)
    _copy(board.near, near)
    for _ in range(scene.distractors):
        if _count_free(board) * CROWDED < scene.resolution**2:
            break
        for _ in range(DISTRACTOR_TRIES):
            if _distractor(state, board, tables, contours[found]):
                _copy(board.taken, taken)
                _copy(board.near, near)
                found += 1
                break
            _copy(taken, board.taken)
            _copy(near, board.near)
    return found


@njit(cache=True, nogil=True)
def _copy(mask: Mask, target: Mask) -> None:
    for y in range(len(mask)):
        for x in range(len(mask)):
            target[y, x] = mask[y, x]


@njit(cache=True, nogil=True)
def _distractor(state: State, board: Board, tables: Tables, contour: Ints) -> bool:
    """Grow a contour (length, 5) on the mask, where there is room for it."""
    if not _seed(state, board, tables, contour[0]):
        return False
    for place in range(1, len(contour)):
        if not _extend(state, board, tables, contour[place - 1], contour[place]):
            return False
    _take(board, tables, contour[len(contour) - 1])
    return True


@njit(cache=True, nogil=True)
def _seed(state: State, board: Board, tables: Tables, paddle: Ints) -> bool:
    """A distractor's first paddle, uniform over the places with room for one of its direction."""
    for _ in range(TRIES):
        degree = _below(state, DEGREES)
        room = tables.room[degree, : tables.room_size[degree]]
        if len(room) == 0:
            return False
        y, x = _guess(state, board, room)
        if y < 0:
            y, x = _choose(state, board, room)
        if y < 0:
            return False
        if _place(board, tables, degree, y, x, paddle):
            return True
    return False


@njit(cache=True, nogil=True)
def _guess(state: State, board: Board, room: Ints) -> tuple[int, int]:
    """The first of some random places that has room, or (-1, -1): cheap where much is free."""
    first, side = board.edge + 1, board.end - board.edge - 2  # inside the outermost pixels
    for _ in range(GUESSES):
        y, x = first + _below(state, side), first + _below(state, side)
        if _has_room(board.taken, room, y, x):
            return y, x
    return -1, -1


@njit(cache=True, nogil=True)
def _choose(state: State, board: Board, room: Ints) -> tuple[int, int]:
    """One of all places that have room, or (-1, -1): they are listed."""
    places = np.zeros(((board.end - board.edge) ** 2, 2), dtype=np.int64)
    found = 0
    for y in range(board.edge + 1, board.end - 1):
        for x in range(board.edge + 1, board.end - 1):
            if _has_room(board.taken, room, y, x):
                places[found, 0], places[found, 1] = y, x
                found += 1
    if found == 0:
        return -1, -1
    chosen = _below(state, found)
    return places[chosen, 0], places[chosen, 1]


@njit(cache=True, nogil=True)
def _has_room(taken: Mask, room: Ints, y: int, x: int) -> bool:
    for pixel in range(len(room)):  # noqa: SIM110 (numba compiles no generator expression)
        if taken[y + room[pixel, 0], x + room[pixel, 1]] > FREE:
            return False
    return True


@njit(cache=True, nogil=True)
def _count_free(board: Board) -> int:
    free = 0
    for y in range(board.edge, board.end):
        for x in range(board.edge, board.end):
            free += board.taken[y, x] <= FREE
    return free
