"""Pathfinder pictures by the published law, the same for any number of threads.

Picture i of a seed is a pure function of (law, seed, i): two random words, from the block it is
in, give its label, its margin and the key that all the rest is drawn from.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks import bits
from tasks.errors import DataError
from tasks.pathfinder.contours import FACTS, Scene, Tables, grow
from tasks.pathfinder.drawing import UNIT, draw
from tasks.pathfinder.footprints import all_tables
from tasks.pathfinder.law import PathfinderLaw
from tasks.screen import Screen
from tasks.storage.rows import Rows

# Pictures drawn at once: a second or two, so that an interruption need not wait. Fixed: another
# number would make another data set of the same seed.
BLOCK = 128
SILENCE = 2.0  # seconds of compilation before a word is said


class Pictures(NamedTuple):
    """Some pictures, and how they came about."""

    pixels: NDArray[np.uint8]  # (n, R, R)
    labels: NDArray[np.int64]  # (n,)
    margins: NDArray[np.int64]  # (n,) of their paddles
    contours: NDArray[np.int64]  # (n, 2, length, 5) the paddles of the two long ones, then zeros
    facts: NDArray[np.int64]  # (n, 6) see ``contours.FACTS``

    @property
    def rows(self) -> Rows:
        """The pictures as sequences, in raster order."""
        n, height, width = self.pixels.shape
        return Rows.of_matrix(self.pixels.reshape(n, height * width), self.labels)


def generate(
    n: int, law: PathfinderLaw, seed: int, workers: int | None = None
) -> Iterator[Pictures]:
    """The first ``n`` pictures of ``seed``, block by block.

    Args:
        n: pictures in all.
        law: what pictures there are.
        seed: 0 <= seed < 2**64; the pictures depend on nothing else.
        workers: threads to draw with (drawing holds no lock); None: one per core.

    Raises:
        DataError: the two long contours of ``law`` do not fit into its pictures.
    """
    tables = all_tables(law)
    with _says_if_slow("compiling the generator (once, some seconds) ..."):
        draw_block(law, tables, seed, 0, 1)
    blocks = [(start // BLOCK, min(BLOCK, n - start)) for start in range(0, n, BLOCK)]
    workers = workers or os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pathfinder")
    try:
        ahead: deque[Future[Pictures]] = deque()
        for index, size in blocks:
            ahead.append(pool.submit(draw_block, law, tables, seed, index, size))
            if len(ahead) == 2 * workers:  # enough to keep all busy, few enough for the memory
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def draw_block(
    law: PathfinderLaw, tables: Sequence[Tables], seed: int, index: int, size: int = BLOCK
) -> Pictures:
    """The first ``size`` pictures of block ``index`` of a seed.

    Args:
        law: what pictures there are.
        tables: ``all_tables(law)``.
        seed: see ``generate``.
        index: of the block; its first picture is number BLOCK * index.
        size: at most BLOCK.

    Raises:
        DataError: see ``generate``.
    """
    words = bits.stream(bits.PATHFINDER, seed, index).random_raw(2 * size)
    keys, choices = words[0::2], words[1::2]  # (size,) each
    labels = bits.below(bits.high(choices), 2)
    which = bits.below(bits.low(choices), len(law.margins))
    pixels = np.zeros((size, law.resolution, law.resolution), dtype=np.uint8)
    facts = np.zeros((size, len(FACTS)), dtype=np.int64)
    contours = np.zeros((size, 2, law.contour_length, 5), dtype=np.int64)
    contrasts = (
        round(UNIT * law.snake_contrast * law.paddle_contrast),
        round(UNIT * law.snake_contrast),
    )
    scene = [getattr(law, name) for name in Scene._fields[1:]]
    for number, margin in enumerate(law.margins):
        place = np.flatnonzero(which == number)
        inputs = keys[place], labels[place], Scene(margin, *scene), tables[number]
        distractors = np.zeros((len(place), law.distractors, law.distractor_length, 5), np.int64)
        its, its_facts, its_pixels = contours[place], facts[place], pixels[place]  # copies
        if grow(*inputs, its, distractors, its_facts) < len(place):
            raise DataError(
                f"two contours of {law.contour_length} paddles do not fit into "
                f"{law.resolution} x {law.resolution} pixels.\n"
                "  try: a smaller task.contour_length, or a larger task.resolution"
            )
        found, markers = its_facts[:, 1], its_facts[:, 2:]
        draw(its, distractors, found, markers, contrasts, tables[number], its_pixels)
        contours[place], facts[place], pixels[place] = its, its_facts, its_pixels
    return Pictures(pixels, labels, np.array(law.margins)[which], contours, facts)


@contextmanager
def _says_if_slow(what: str) -> Iterator[None]:
    """Tell the terminal what is done, if it takes longer than ``SILENCE``."""
    timer = threading.Timer(SILENCE, lambda: Screen(stderr=True).say(what))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
