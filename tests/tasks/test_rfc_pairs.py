"""Pairs from a corpus: true ones, their matched negatives, and splits that share nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tasks.errors import DataError
from tasks.retrieval.baselines import auc
from tasks.retrieval.rfc import Corpus
from tasks.retrieval.rfc_pairs import NEAREST, Pairs, in_degrees, matched_pairs, split_pairs

SIZES = {"train": 300, "val": 41 * 2, "test": 100}


def corpus(
    documents: int = 220, seed: int = 0, links: int = 6, recent: bool = False, per_year: int = 15
) -> Corpus:
    """A few documents are cited most, or the most recent ones; a few links look forward."""
    random = np.random.default_rng(seed)
    popularity = random.random(documents)
    found = set()
    for citing in range(1, documents):
        order = np.arange(citing)[::-1] if recent else np.argsort(popularity[:citing])
        places = (random.random(links) ** 2 * citing).astype(int)
        found |= {(citing, int(cited)) for cited in order[places]}
    found |= {(each, each + 3) for each in range(0, documents - 3, 17)}
    years = 1970 + np.arange(documents) // per_year
    ids = np.arange(documents) * 3 + 1
    texts = [f"text {each}" for each in range(documents)]
    return Corpus(ids, years, texts, np.array(sorted(found)))


def in_degree(made: Corpus, document: int) -> int:
    return sum(cited == document for _, cited in made.citations.tolist())


@pytest.mark.parametrize("years", [0, 2])
def test_each_positive_has_a_matched_negative(years: int) -> None:
    made = corpus()
    links = {tuple(link) for link in made.citations.tolist()}
    pairs = matched_pairs(made, max_in_degree=20, years=years, seed=0)
    assert pairs.labels.tolist() == [1, 0] * (len(pairs.labels) // 2)
    assert len(pairs.labels) > 500
    seen = set()
    for row in range(0, len(pairs.labels), 2):
        citing, cited, other = (int(pairs.first[row]), *pairs.second[row : row + 2].tolist())
        assert citing == pairs.first[row + 1]
        assert (citing, cited) in links
        assert (citing, other) not in links
        assert (other, citing) not in links
        assert max(cited, other) < citing
        assert abs(int(made.years[cited]) - int(made.years[other])) <= years
        for document in (cited, other):
            assert 0 < in_degree(made, document) < 20
        seen |= {(citing, cited), (citing, other)}
    assert len(seen) == len(pairs.labels)  # no pair twice
    assert seen.isdisjoint({(b, a) for a, b in seen})


def test_the_negative_is_among_the_nearest_in_degree() -> None:
    """Counted again for every pair: fewer than NEAREST candidates are strictly nearer."""
    made = corpus(links=3)
    linked = {frozenset(link) for link in made.citations.tolist()}
    degree = [in_degree(made, document) for document in range(len(made.ids))]
    pairs = matched_pairs(made, max_in_degree=30, years=5, seed=3)

    def distance(document: int, wanted: int) -> int:
        return 1000 * abs(degree[document] - wanted) // (degree[document] + wanted)

    taken: set[tuple[int, int]] = set()
    for row in range(0, len(pairs.labels), 2):
        citing, cited, other = (int(pairs.first[row]), *pairs.second[row : row + 2].tolist())
        nearer = [
            each
            for each in range(citing)
            if frozenset((citing, each)) not in linked
            and (citing, each) not in taken
            and abs(int(made.years[each] - made.years[cited])) <= 5
            and 0 < degree[each] < 30
            and distance(each, degree[cited]) < distance(other, degree[cited])
        ]
        assert len(nearer) < NEAREST
        taken.add((citing, other))


def without_matching(pairs: Pairs) -> np.ndarray:
    """Second documents where any earlier one may be the negative."""
    drawn = (np.random.default_rng(1).random(len(pairs.first)) * pairs.first).astype(int)
    return np.where(pairs.labels == 1, pairs.second, drawn)


def test_fame_does_not_tell_the_negative() -> None:
    made = corpus(400, links=4, per_year=80)
    pairs, degree = matched_pairs(made, 60, 2, 0), in_degrees(made)
    assert degree.tolist() == [in_degree(made, document) for document in range(400)]
    assert abs(auc(degree[pairs.second] * 1.0, pairs.labels) - 0.5) < 0.06
    assert auc(degree[without_matching(pairs)] * 1.0, pairs.labels) > 0.6


def test_age_does_not_tell_the_negative() -> None:
    made = corpus(400, recent=True)
    pairs = matched_pairs(made, 20, 2, 0)
    age, loose = (
        made.years[pairs.first] - made.years[second]
        for second in (pairs.second, without_matching(pairs))
    )
    assert abs(auc(age * 1.0, pairs.labels) - 0.5) < 0.06
    assert auc(loose * 1.0, pairs.labels) < 0.4


def test_splits_have_their_sizes_and_no_common_citing_document() -> None:
    pairs = matched_pairs(corpus(), 20, 2, 0)
    splits = split_pairs(pairs, SIZES, 0)
    assert list(splits) == ["train", "val", "test"]
    assert {name: len(split.labels) for name, split in splits.items()} == SIZES
    documents = [set(split.first.tolist()) for split in splits.values()]
    assert sum(map(len, documents)) == len(set.union(*documents))
    whole = {(a, b): label for a, b, label in zip(*(c.tolist() for c in pairs), strict=True)}
    for split in splits.values():
        assert split.labels.mean() == 0.5
        for first, second, label in zip(*(c.tolist() for c in split), strict=True):
            assert whole[first, second] == label


def test_the_seed_decides_and_nothing_else() -> None:
    made = corpus()
    one, again, other = (matched_pairs(made, 20, 2, seed) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one.second, other.second)
    first, second, third = (split_pairs(one, SIZES, seed) for seed in (5, 5, 6))
    assert np.array_equal(first["test"].first, second["test"].first)
    assert not np.array_equal(first["test"].first, third["test"].first)


def test_more_train_leaves_validation_and_test_alone() -> None:
    pairs = matched_pairs(corpus(), 20, 2, 0)
    small, large = (split_pairs(pairs, {**SIZES, "train": n}, 0) for n in (100, 300))
    for name in ("val", "test"):
        assert np.array_equal(small[name].second, large[name].second)


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_too_few_pairs_are_told_with_what_there_is(name: str) -> None:
    pairs = matched_pairs(corpus(), 20, 2, 0)
    used = {"train": 182, "val": 100, "test": 0}[name]  # by those that are served before
    with pytest.raises(DataError) as caught:
        split_pairs(pairs, {**SIZES, name: 10**6}, 0)
    found = re.search(
        r"are ([\d,]+) pairs in all, and ([\d,]+) left for .* " + name, str(caught.value)
    )
    assert found is not None
    total, left = (int(number.replace(",", "")) for number in found.groups())
    assert total == len(pairs.labels)
    assert 0 <= total - used - left < 40  # what the last documents of the others lose
    assert f"task.num_{name}" in str(caught.value)
