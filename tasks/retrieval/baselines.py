"""What a pair of texts tells without reading them: scores to beat, each fitted on train."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WORD = re.compile(r"[a-z]{2,}")


def tfidf_cosines(texts: Sequence[str], fit_on: Iterable[int], first: Ints, second: Ints) -> Floats:
    """The cosine of the TF-IDF vectors of pairs of texts.

    Words are runs of two letters or more without case; a word that occurs ``c`` times in a text
    and in ``d`` of the ``n`` fitted ones weighs (1 + log c) * (1 + log((1 + n) / (1 + d))).

    Args:
        texts: all of them.
        fit_on: the places of those in which words are counted for the second factor.
        first: (pairs,) places in ``texts``; fastest where equal ones follow each other.
        second: (pairs,).

    Returns:
        (pairs,) numbers in 0 .. 1; 0 where a text has no word.
    """
    number: dict[str, int] = {}
    words: list[Ints] = []
    weights: list[Floats] = []
    for text in texts:
        counts = Counter(WORD.findall(text.lower()))
        places = [number.setdefault(word, len(number)) for word in counts]
        words.append(np.array(places, dtype=np.int64))
        weights.append(1 + np.log(np.array(list(counts.values()), dtype=np.float64)))
    fitted = sorted(set(fit_on))
    within = np.zeros(len(number))
    for text_place in fitted:
        within[words[text_place]] += 1
    rarity = 1 + np.log((1 + len(fitted)) / (1 + within))
    for place, own in enumerate(words):
        vector = weights[place] * rarity[own]
        weights[place] = vector / max(float(np.linalg.norm(vector)), 1e-300)
    cosines = np.zeros(len(first))
    dense, held = np.zeros(len(number)), -1  # the first text's vector, written out
    for pair, (one, other) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        if one != held:
            if held >= 0:
                dense[words[held]] = 0
            dense[words[one]], held = weights[one], one
        cosines[pair] = dense[words[other]] @ weights[other]
    return cosines


def judge(train: Floats, train_labels: Ints, test: Floats, test_labels: Ints) -> dict[str, float]:
    """How well one number per sample tells two classes apart.

    Args:
        train: (n,) scores, on which a threshold, and which side of it is class 1, are fitted.
        train_labels: (n,) 0 or 1.
        test: (m,) scores.
        test_labels: (m,).

    Returns:
        ``accuracy`` on test, and ``auc``, the area under its ROC curve in the fitted direction.
    """
    threshold, upper = fit_threshold(train, train_labels)
    answers = (test > threshold) == (upper == 1)
    area = auc(test, test_labels)
    return {
        "accuracy": round(float((answers == (test_labels == 1)).mean()), 4),
        "auc": round(area if upper == 1 else 1 - area, 4),
    }


def fit_threshold(scores: Floats, labels: Ints) -> tuple[float, int]:
    """The threshold of the highest accuracy, and the class of the scores above it.

    Args:
        scores: (n,).
        labels: (n,) 0 or 1.
    """
    values, group = np.unique(scores, return_inverse=True)
    ones = np.cumsum(np.bincount(group, weights=labels))  # of class 1 up to each value
    zeros = np.cumsum(np.bincount(group, weights=1 - labels))
    right_above = zeros + ones[-1] - ones  # right answers if class 1 lies above the value
    right_below = ones + zeros[-1] - zeros
    best_above, best_below = int(np.argmax(right_above)), int(np.argmax(right_below))
    if right_above[best_above] >= right_below[best_below]:
        return float(values[best_above]), 1
    return float(values[best_below]), 0


def auc(scores: Floats, labels: Ints) -> float:
    """The probability that a sample of class 1 scores higher than one of class 0; ties count half.

    Args:
        scores: (n,).
        labels: (n,) 0 or 1, both among them.
    """
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]  # from 1; equal scores share their mean
    ones = int(labels.sum())
    above = ranks[labels == 1].sum() - ones * (ones + 1) / 2
    return float(above / (ones * (len(labels) - ones)))
