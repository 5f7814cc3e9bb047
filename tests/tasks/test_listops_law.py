"""The generator against the law itself: the exact distribution of lengths, not a sample of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.listops.generator import BLOCK, ListOpsLaw, draw_block


def length_distribution(law: ListOpsLaw) -> np.ndarray:
    """P(length = n) of one draw for n <= max_length, by recursion over the depth.

    At the last depth a node is one symbol. Above it, it is one symbol with probability p_digit,
    else two symbols and the sum of 2 .. max_args independent nodes of the next depth: a mixture of
    convolution powers.
    """
    size = law.max_length + 1
    digit = np.zeros(size)
    digit[1] = 1.0
    node = digit
    for _ in range(law.max_depth - 1):
        power, children = node, np.zeros(size)
        for _ in range(2, law.max_args + 1):
            power = np.convolve(power, node)[:size]
            children += power / (law.max_args - 1)
        above = law.p_digit * digit
        above[2:] += (1 - law.p_digit) * children[:-2]
        node = above
    return node


@pytest.mark.parametrize(
    "law",
    [
        ListOpsLaw(),
        ListOpsLaw(5, 40, 4, 5, 0.75),
        ListOpsLaw(2, 300, 6, 3, 0.3),
    ],
    ids=["published", "demo", "dense"],
)
def test_acceptance_and_lengths_follow_the_law(law: ListOpsLaw) -> None:
    exact = length_distribution(law)[law.min_length + 1 : law.max_length]
    blocks = [draw_block(law, seed=3, index=index) for index in range(40)]
    draws = BLOCK * len(blocks)
    lengths = np.concatenate([block.lengths for block in blocks])
    rate = exact.sum()
    error = math.sqrt(rate * (1 - rate) / draws)
    assert abs(len(lengths) / draws - rate) < 4 * error
    n = np.arange(law.min_length + 1, law.max_length)
    mean = (exact * n).sum() / rate
    spread = math.sqrt((exact * (n - mean) ** 2).sum() / rate)
    assert abs(lengths.mean() - mean) < 4 * spread / math.sqrt(len(lengths))


def test_the_published_law_accepts_one_draw_in_twelve() -> None:
    """The figures by which the law is known: 8.3 % of draws, mean length 1,035."""
    exact = length_distribution(ListOpsLaw())[501:2000]
    assert exact.sum() == pytest.approx(0.0828, abs=1e-4)
    assert (exact * np.arange(501, 2000)).sum() / exact.sum() == pytest.approx(1035.0, abs=0.1)
