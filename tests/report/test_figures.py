"""The chart: round ticks that enclose the data, points where a formula puts them."""

from __future__ import annotations

import math
import re
from importlib.resources import files
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chela.report.figures import (
    BOTTOM,
    COLORS,
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
    assert points_of(run(metrics=odd), "val/accuracy", "%") == [(1, 50)]
    assert points_of(run(metrics=None), "val/accuracy", "%") == []
    assert run_curves([run(metrics=[])]) == ""
    assert learning_curves(build(found(run(metrics=[])))) == ""


@given(st.lists(st.floats(0, 300), max_size=12))
def test_numbers_at_the_ends_of_lines_keep_apart_and_their_order(places) -> None:
    moved = spread(places, 12)
    order = sorted(range(len(places)), key=lambda index: places[index])
    assert all(moved[b] - moved[a] >= 12 - 1e-9 for a, b in pairwise(order))
    if all(places[b] - places[a] >= 12 for a, b in pairwise(order)):
        assert moved == pytest.approx(places)


def numbers_of(ends) -> list[tuple[float, float]]:
    """Where the numbers of lines with these ends stand, across and down."""
    lines = [Line("x", n, [(0, 0), end], number=n) for n, end in enumerate(ends, start=1)]
    root = ElementTree.fromstring(chart(lines, "step", "%", "what"))
    texts = [each for each in root.iter("text") if (each.get("class") or "")[:3] == "end"]
    return [(float(each.get("x")), float(each.get("y"))) for each in texts]


def test_a_number_gives_way_to_those_beside_it_alone() -> None:
    (_, early), (_, late) = numbers_of([(10, 99), (100, 100)])
    assert early - late == pytest.approx((HEIGHT - TOP - BOTTOM) / 100, abs=0.11)
    (_, one), (_, other) = numbers_of([(99, 99), (100, 100)])
    assert one - other == pytest.approx(12, abs=0.11)


def test_the_numbers_of_many_lines_stay_in_the_chart() -> None:
    heights = [y - 4 for _, y in numbers_of([(100, 100 - n / 100) for n in range(30)])]
    assert heights == sorted(heights)
    assert len({*heights}) == 30
    assert TOP <= heights[0] < heights[-1] <= HEIGHT - BOTTOM


def test_bands_that_would_cover_each_other_wait_to_be_pointed_at() -> None:
    for models, crowded in ((5, False), (6, True)):
        runs = [run(f"m{n}", seed=seed, accuracy=0.5) for n in range(models) for seed in (0, 1)]
        assert ("crowded" in learning_curves(build(found(*runs)))) == crowded


# Machado, Oliveira and Fernandes 2009, the whole of a deficiency, on linear RGB; then to OKLab
# (Ottosson 2020).
EYES = {
    "usual": np.eye(3),
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
CONES = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
OKLAB = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("scheme", [0, 1])
def test_every_eye_tells_the_colours_of_lines_apart(eye: str, scheme: int) -> None:
    css = files("chela.report").joinpath("templates/page.css").read_text()
    colors = re.findall(r"--c\d: #(\w{6})", css)[COLORS * scheme : COLORS * (scheme + 1)]
    assert len(colors) == COLORS
    linear = (np.array([[*bytes.fromhex(each)] for each in colors]) / 255) ** 2.2
    seen = np.clip(linear @ np.transpose(EYES[eye]), 0, 1)
    lab = np.cbrt(seen @ np.transpose(CONES)) @ np.transpose(OKLAB)
    assert min(np.linalg.norm(a - b) for a, b in combinations(lab, 2)) > 0.12


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
