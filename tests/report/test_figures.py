"""The chart: round ticks that enclose the data, points where a formula puts them."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chela.report.figures import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Line,
    chart,
    learning_curves,
    points_of,
    run_curves,
    spread,
    thinned,
    ticks,
)
from chela.report.table import build
from tests.records.samples import found, run

NUMBERS = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)


@given(NUMBERS, NUMBERS)
def test_ticks_enclose_both_ends_at_round_steps(one, other) -> None:
    low, high = min(one, other), max(one, other)
    found = ticks(low, high)
    step = found[1] - found[0]
    assert found[0] <= low + 1e-6 * step
    assert found[-1] >= high - 1e-6 * step
    assert 2 <= len(found) <= 9
    for before, after in pairwise(found):
        assert after - before == pytest.approx(step, rel=1e-3)
    digits = f"{step:.3e}".partition("e")[0]
    if high - low > 1e-3 * max(abs(low), abs(high)):  # else twelve digits cannot show the step
        assert float(digits) in (1, 2, 5)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1000, [0, 200, 400, 600, 800, 1000]), (0.1, 0.35, [0.1, 0.15, 0.2, 0.25, 0.3, 0.35])],
)
def test_ticks_by_hand(low, high, expected) -> None:
    assert ticks(low, high) == expected


def test_points_lie_where_they_should() -> None:
    text = chart([Line("a", 0, [(0, 0), (5, 50), (10, 100)])], "step", "%", "what")
    path = re.search(r'class="line line0" d="M([^"]+)"', text)
    assert path is not None
    points = [tuple(map(float, point.split())) for point in path[1].split("L")]
    dots = re.search(r'class="line line0 dot" d="M([^"]+)h0"', text)
    assert dots is not None
    assert dots[1].split("h0M") == path[1].split("L")
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    expected = [(LEFT, TOP + high), (LEFT + wide / 2, TOP + high / 2), (LEFT + wide, TOP)]
    for point, place in zip(points, expected, strict=True):
        assert point == pytest.approx(place, abs=0.06)


@given(st.lists(st.tuples(st.integers(0, 9999), st.floats(0, 100) | st.just(math.nan)), max_size=5))
def test_a_chart_is_well_formed_or_nothing(points) -> None:
    text = chart([Line("<&>", 7, points, faint=True)], "<x>", "&y", '"<d>"')
    if all(math.isnan(y) for _, y in points):
        assert text == ""
    else:
        root = ElementTree.fromstring(text)
        assert root.find("title").text == '"<d>"'
        assert "nan" not in text


@given(st.integers(1, 2000))
def test_thinning_keeps_both_ends_and_the_order(count) -> None:
    points = [(float(n), 0.0) for n in range(count)]
    kept = thinned(points)
    assert len(kept) == min(count, MOST_POINTS)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert kept == sorted(set(kept))


def test_curves_take_what_is_there() -> None:
    odd = [
        {"step": 1, "val/accuracy": 0.5},
        {"step": 2},
        {"step": 3, "val/accuracy": math.nan},
        {"step": 4, "val/accuracy": "0.5"},
    ]
    assert points_of(run(metrics=odd), "val/accuracy") == [(1, 50)]
    assert points_of(run(metrics=None), "val/accuracy") == []
    assert run_curves([run(metrics=[])]) == ""
    assert learning_curves(build(found(run(metrics=[])))) == ""


@given(st.lists(st.floats(0, 300), max_size=12))
def test_numbers_at_the_ends_of_lines_keep_apart_and_their_order(places) -> None:
    moved = spread(places, 12)
    order = sorted(range(len(places)), key=lambda index: places[index])
    assert all(moved[b] - moved[a] >= 12 - 1e-9 for a, b in pairwise(order))
    if all(places[b] - places[a] >= 12 for a, b in pairwise(order)):
        assert moved == pytest.approx(places)


def test_the_seeds_of_a_row_are_one_line_in_the_band_between_them() -> None:
    runs = [run(model, seed=n, accuracy=0.5 + n / 10) for model in ("a", "b") for n in range(3)]
    stopped = run("a", seed=3, status="interrupted", accuracy=None)
    single = run("c", accuracy=0.9)
    text = learning_curves(build(found(*runs, stopped, single)))
    root = ElementTree.fromstring(f"<div>{text}</div>")
    bands = [each.get("class") for each in root.iter("path") if "band" in each.get("class", "")]
    assert bands == ["band line line0", "band line line1"]
    assert text.count('class="line line0"') == 1 + 1  # and the legend's
    # numbered by where they end, the same beside the line and in the legend
    assert [each.get("class") for each in root.iter("li")] == ["k1", "k2", "k3"]
    assert "".join(next(root.iter("li")).itertext()) == "1 c"
    ends = [each.text for each in root.iter("text") if (each.get("class") or "")[:3] == "end"]
    assert ends == ["1", "2", "3"]
