"""Pairs of documents, one of which cites the other or not, without shortcuts between the two.

A positive pair is a document and an earlier one that it cites. Its negative has the same citing
document, and in place of the cited one another earlier document that it does not cite, of about the
same year and cited about as often: neither age nor fame nor the citing document tells the two
apart. Documents that many cite are left out, as everyone cites them for the same reason.

Every pair of a citing document is in the same split, so no citing document of one split is in
another's pairs as the citing one. As all pairs look back in time, no pair occurs a second time the
other way round. Cited documents may be in several splits, as papers are in the original task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks import bits
from tasks.errors import DataError
from tasks.retrieval.rfc import Corpus

NEAREST = 20  # candidates of the most similar in-degree, one of which becomes the negative

Ints = NDArray[np.int64]


class Pairs(NamedTuple):
    """Pairs as places in the corpus, each positive followed by its negative."""

    first: Ints  # (n,) the citing document
    second: Ints  # (n,) the earlier document
    labels: Ints  # (n,) 1: cited


def in_degrees(corpus: Corpus) -> Ints:
    """How many documents of the corpus cite each (n,)."""
    return np.bincount(corpus.citations[:, 1], minlength=len(corpus.ids))


def matched_pairs(corpus: Corpus, max_in_degree: int, years: int, seed: int) -> Pairs:
    """All positive pairs that have a matched negative, and these.

    Args:
        corpus: documents and citations.
        max_in_degree: of a cited document; exclusive.
        years: at most this far is the negative's year from the cited document's.
        seed: 0 <= seed < 2**64, of the choice among the nearest.
    """
    degree = in_degrees(corpus)
    eligible = (degree > 0) & (degree < max_in_degree)
    by_year = np.argsort(corpus.years, kind="stable")
    sorted_years = corpus.years[by_year]
    citing, cited = corpus.citations.T
    starts = np.searchsorted(citing, np.arange(len(corpus.ids) + 1))
    citers = np.argsort(cited, kind="stable")  # the same links, by the cited document
    cited_starts = np.searchsorted(cited[citers], np.arange(len(corpus.ids) + 1))
    first: list[int] = []
    second: list[int] = []
    for document in range(len(corpus.ids)):
        neighbours = cited[starts[document] : starts[document + 1]]
        positives = neighbours[(neighbours < document) & eligible[neighbours]]
        free = eligible.copy()
        free[document:] = False  # earlier documents only
        free[neighbours] = False
        free[citing[citers[cited_starts[document] : cited_starts[document + 1]]]] = False
        stream = bits.stream(bits.RFC_NEGATIVES, seed, int(corpus.ids[document]))
        for positive in positives.tolist():
            year = corpus.years[positive]
            low, high = np.searchsorted(sorted_years, [year - years, year + years + 1])
            candidates = by_year[low:high]
            candidates = candidates[free[candidates]]
            if len(candidates):
                negative = _draw(candidates, degree[candidates], degree[positive], stream)
                free[negative] = False
                first += [document, document]
                second += [positive, negative]
    labels = np.tile([1, 0], len(first) // 2)
    return Pairs(np.array(first, np.int64), np.array(second, np.int64), labels.astype(np.int64))


def split_pairs(pairs: Pairs, sizes: Mapping[str, int], seed: int) -> dict[str, Pairs]:
    """Deal the citing documents out to splits, in a random order, until each has its pairs.

    Args:
        pairs: as from ``matched_pairs``.
        sizes: an even number of pairs of each split; the last document of a split may lose some.
        seed: 0 <= seed < 2**64.

    Raises:
        DataError: there are too few pairs.
    """
    documents, starts = np.unique(pairs.first, return_index=True)
    counts = np.diff(np.append(starts, len(pairs.first)))
    raw = bits.stream(bits.RFC_SPLITS, seed, 0).random_raw(len(documents))
    order = np.argsort(raw, kind="stable")
    splits: dict[str, Pairs] = {}
    # train last: what the others need does not depend on its size
    for name in reversed(list(sizes)):
        reached = np.cumsum(counts[order])
        needed = int(np.searchsorted(reached, sizes[name])) + 1
        if needed > len(order):
            raise DataError(
                f"there are {len(pairs.labels):,} pairs in all, and {int(counts[order].sum()):,} "
                f"left for the {sizes[name]:,} of {name}.\n"
                f"  try: smaller {', '.join(f'task.num_{split}' for split in sizes)}"
            )
        rows = [np.arange(starts[each], starts[each] + counts[each]) for each in order[:needed]]
        chosen = np.concatenate(rows)[: sizes[name]]
        splits[name] = Pairs(*(column[chosen] for column in pairs))
        order = order[needed:]
    return {name: splits[name] for name in sizes}


def _draw(candidates: Ints, degrees: Ints, wanted: int, stream: np.random.Philox) -> int:
    """One of the candidates whose in-degree is nearest in ratio; equally near ones in any order."""
    distance = 1000 * np.abs(degrees - wanted) // (degrees + wanted)
    raw = stream.random_raw(len(candidates) + 1)
    key = distance << 32 | bits.high(raw[1:]).astype(np.int64)
    choice = int(bits.below(bits.high(raw[:1]), min(NEAREST, len(candidates)))[0])
    return int(candidates[np.argpartition(key, choice)[choice]])  # the choice-th nearest
