"""The scores to beat, beside their definitions written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.retrieval.baselines import auc, fit_threshold, judge, tfidf_cosines

scored = st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 1)), min_size=2, max_size=30).filter(
    lambda rows: {label for _, label in rows} == {0, 1}
)


def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([float(score) for score, _ in rows]), np.array([label for _, label in rows])


@settings(max_examples=200)
@given(scored)
def test_auc_is_the_share_of_pairs_in_order(rows) -> None:
    ones = [score for score, label in rows if label]
    zeros = [score for score, label in rows if not label]
    won = sum((one > zero) + 0.5 * (one == zero) for one in ones for zero in zeros)
    assert auc(*columns(rows)) == pytest.approx(won / (len(ones) * len(zeros)))


@settings(max_examples=200)
@given(scored)
def test_no_threshold_is_better(rows) -> None:
    scores, labels = columns(rows)
    threshold, upper = fit_threshold(scores, labels)
    found = np.mean(np.where(scores > threshold, upper, 1 - upper) == labels)
    best = max(
        np.mean(np.where(scores > cut, side, 1 - side) == labels)
        for cut in np.arange(-4.5, 5)
        for side in (0, 1)
    )
    assert found == pytest.approx(best)


def test_the_threshold_is_that_of_train() -> None:
    train = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1, 1, 0, 0])  # class 1 lies below
    test = np.array([0.5, 2.5, 1.0, 9.0]), np.array([1, 1, 0, 0])
    found = judge(*train, *test)
    assert found == {"accuracy": 0.5, "auc": 0.75}


def naive_cosine(texts: list[str], fit_on: list[int], first: int, second: int) -> float:
    def vector(text: str) -> dict[str, float]:
        words = text.split()
        n = len(set(fit_on))
        found = {}
        for word in sorted(set(words)):
            within = sum(word in texts[place].split() for place in set(fit_on))
            found[word] = (1 + math.log(words.count(word))) * (1 + math.log((1 + n) / (1 + within)))
        return found

    a, b = vector(texts[first]), vector(texts[second])
    dot = sum(a[word] * b.get(word, 0) for word in a)
    norms = math.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))
    return dot / norms if norms else 0.0


@settings(max_examples=60)
@given(st.data())
def test_tfidf_is_its_formula(data) -> None:
    words = st.sampled_from(["net", "mail", "route", "byte"])
    texts = data.draw(st.lists(st.lists(words, max_size=8).map(" ".join), min_size=1, max_size=6))
    place = st.integers(0, len(texts) - 1)
    pairs = data.draw(st.lists(st.tuples(place, place), min_size=1, max_size=8))
    fit_on = data.draw(st.lists(place, max_size=6))
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    found = tfidf_cosines(texts, fit_on, first, second)
    expected = [naive_cosine(texts, fit_on, one, other) for one, other in pairs]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_words_have_two_letters_and_no_case() -> None:
    texts = ["The TCP/IP of 1981", "tcp ip, the a 1 of", "x 1 2 3"]
    places = np.array([0, 0])
    np.testing.assert_allclose(tfidf_cosines(texts, [0, 1], places, np.array([1, 2])), [1, 0])
