"""The tables that Pathfinder is drawn from, each beside its plain formula."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from tasks.pathfinder.footprints import all_tables, dilated, disk, line, marker, reduced, tables
from tasks.pathfinder.law import PUBLISHED
from tests.tasks.pathfinder_naive import dilate, translate

LAW = PUBLISHED[128]
TABLES = tables(LAW, 2)


@settings(max_examples=50)
@given(arrays(np.uint8, st.tuples(*2 * [st.integers(14, 41)])), st.integers(7, 21))
def test_reduced_is_what_pillow_does(image, size: int) -> None:
    square = image[: min(image.shape), : min(image.shape)]
    size = min(size, len(square))
    theirs = Image.fromarray(square).resize((size, size), Image.Resampling.LANCZOS)
    assert np.array_equal(reduced(square, size), np.asarray(theirs))


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_dilated_is_the_maximum_round_each_pixel(radius: int) -> None:
    image = np.random.default_rng(radius).integers(0, 256, (12, 12)).astype(np.uint8)
    assert np.array_equal(dilated(image, disk(radius)), dilate(image, radius))


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("end", [(0, 10), (-10, 0), (7, 7), (3, -9), (-5, 9), (10, 2)])
def test_a_line_holds_the_pixels_along_it(width: int, end: tuple[int, int]) -> None:
    drawn = line(20, end, width)
    length = math.hypot(*end)
    for y, x in np.ndindex(drawn.shape):
        along = ((y - 20) * end[0] + (x - 20) * end[1]) / length
        across = ((y - 20) * end[1] - (x - 20) * end[0]) / length
        inside = -1e-9 <= along <= length + 1e-9 and -width / 2 - 1e-9 <= across < width / 2 - 1e-9
        assert drawn[y, x] == inside


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_lines_have_as_much_ink_as_pillow_s(width: int) -> None:
    """Not the same pixels: Pillow's wide lines differ from version to version."""
    ours = theirs = 0
    for degree in range(0, 360, 5):
        y, x = translate((0, 0), math.radians(degree), 10)
        ours += int(line(20, (y, x), width).sum())
        picture = Image.new("L", (41, 41))
        ImageDraw.Draw(picture).line([(20, 20), (20 + x, 20 + y)], fill=1, width=width)
        theirs += int(np.asarray(picture).sum())
    assert ours == pytest.approx(theirs, rel=0.15)


def test_a_thin_line_has_one_pixel_in_each_row_or_column() -> None:
    assert np.argwhere(line(4, (2, 4), 1)).tolist() == [[4, 4], [5, 5], [5, 6], [6, 7], [6, 8]]


def test_the_steps_are_those_of_the_formula() -> None:
    for degree in range(360):
        angle = math.radians(degree - 180)
        head = translate((50, 50), angle, 5)
        assert (TABLES.head[degree] + 50).tolist() == [*head]
        pivot = translate(head, angle + math.pi, 5 + 2)
        assert (TABLES.pivot[degree] + 50).tolist() == [*pivot]
        assert (TABLES.step[degree] + 50).tolist() == [*translate((50, 50), angle, 5 + 4)]
        assert np.linalg.norm(TABLES.away[degree]) == pytest.approx(20, abs=0.71)


def test_the_circle_and_its_odds() -> None:
    radius = np.linalg.norm(TABLES.circle + 0.5, axis=1)
    assert np.all(np.abs(radius - 7) < 1.3)
    assert len(TABLES.circle) == len(np.unique(TABLES.circle, axis=0))
    for end, (y, x) in enumerate(TABLES.circle):
        phi = math.atan2(y, x)
        for degree in range(0, 360, 7):
            turn = abs(math.remainder(phi - math.radians(degree - 180), math.tau))
            expected = max(0.0, math.cos(min(1.8 * turn, math.pi / 2))) ** 2
            assert TABLES.odds[degree, end] / 65536 == pytest.approx(expected, abs=1e-5)
        assert TABLES.odds[360 + end, end] == 65536  # straight on


def test_a_zone_surrounds_its_paddle() -> None:
    assert np.all(TABLES.solid[TABLES.ink > 128] >= 230)
    assert np.all(TABLES.solid.sum(axis=(1, 2)) > 2 * TABLES.ink.sum(axis=(1, 2)))
    for direction in range(0, len(TABLES.solid), 13):
        zone, wide = TABLES.solid[direction], TABLES.wide[direction]
        assert np.array_equal(wide, dilate(np.pad(zone, 2), 2))


def test_a_marker_is_a_disc() -> None:
    disc = marker(3.0)
    assert disc.max() == 255
    assert (disc / 255.0).sum() == pytest.approx(math.pi * 9, rel=0.05)
    y, x = np.argwhere(disc > 128).mean(axis=0) - len(disc) // 2
    assert abs(y) <= 0.5
    assert abs(x) <= 0.5


def test_each_margin_has_tables() -> None:
    law = dataclasses.replace(PUBLISHED[32], margins=(1, 2))
    for margin, its in zip(law.margins, all_tables(law), strict=True):
        for name, table in tables(law, margin)._asdict().items():
            assert np.array_equal(getattr(its, name), table), name
