"""The law of ListOps: as published, and the same trees from any number of processes."""

from __future__ import annotations

import hashlib
import itertools
import math
import multiprocessing
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import DataError
from tasks.listops.generator import BLOCK, ListOpsLaw, draw_block, generate
from tasks.listops.tsv import source_text, write_tsv
from tasks.listops.vocabulary import SYMBOLS
from tasks.storage.rows import Rows
from tests.tasks.trees import Tree, read_tree

REAL = ListOpsLaw()


def texts(rows: Rows) -> list[bytes]:
    text = rows.values.tobytes()
    return [text[a:b] for a, b in itertools.pairwise(rows.offsets.tolist())]


def parsed(rows: Rows) -> list[Tree]:
    return [read_tree(source_text(text).decode()) for text in texts(rows)]


def collect(n: int, law: ListOpsLaw, seed: int, workers: int = 1) -> list[Rows]:
    return [*generate(n, law, seed, workers)]


def digest(blocks: list[Rows]) -> str:
    content = hashlib.sha256()
    for rows in blocks:
        for array in (rows.values, rows.offsets, rows.labels):
            content.update(array.astype(np.int64).tobytes())
    return content.hexdigest()


@pytest.mark.long
def test_written_trees_have_the_value_that_an_independent_reading_finds(tmp_path: Path) -> None:
    write_tsv(tmp_path / "trees.tsv", collect(2_000, REAL, seed=5))
    lines = (tmp_path / "trees.tsv").read_text().splitlines()
    assert lines[0] == "Source\tTarget"
    assert len(lines) == 2_001
    deepest, widths = 0, set()
    for line in lines[1:]:
        source, label = line.split("\t")
        tree = read_tree(source)
        assert tree.value == int(label), line
        assert 500 < tree.length < 2000
        deepest = max(deepest, tree.depth)
        widths |= set(tree.arguments)
    assert deepest == 10
    assert widths == set(range(2, 11))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**63 - 1),
    min_length=st.integers(0, 12),
    spread=st.integers(2, 60),
    max_depth=st.integers(1, 6),
    max_args=st.integers(2, 7),
    p_digit=st.sampled_from([0.0, 0.4, 0.75, 0.95]),
)
def test_any_law_is_kept(
    seed: int, min_length: int, spread: int, max_depth: int, max_args: int, p_digit: float
) -> None:
    law = ListOpsLaw(min_length, min_length + spread, max_depth, max_args, p_digit)
    rows = draw_block(law, seed, 0)
    some = rows.slice(0, min(40, len(rows.labels)))
    for tree, length, label in zip(parsed(some), some.lengths, some.labels, strict=True):
        assert tree.value == label
        assert tree.length == length
        assert law.min_length < length < law.max_length
        assert tree.depth <= max_depth
        assert all(2 <= n <= max_args for n in tree.arguments)


def test_a_law_with_few_trees_yields_each_of_them_once_and_then_stops() -> None:
    """Depth 2, two arguments: 10 digits and 4 x 10 x 10 operators, no more, no fewer."""
    law = ListOpsLaw(min_length=0, max_length=5, max_depth=2, max_args=2)
    found = [text for rows in collect(410, law, seed=0) for text in texts(rows)]
    names = {bytes(SYMBOLS.index(word) for word in words) for words in _all_small_trees()}
    assert set(found) == names
    assert len(found) == 410
    with pytest.raises(DataError, match=r"too few trees: 410 of 411(.|\n)*try:"):
        collect(411, law, seed=0)


def _all_small_trees() -> list[tuple[str, ...]]:
    digits = "0123456789"
    operators = ("[MIN", "[MAX", "[MED", "[SM")
    pairs = [(name, a, b, "]") for name in operators for a in digits for b in digits]
    return [*((digit,) for digit in digits), *pairs]


def test_a_law_without_trees_is_given_up() -> None:
    with pytest.raises(DataError, match="too few trees: 0 of 1 "):
        collect(1, ListOpsLaw(min_length=500, max_length=2000, max_depth=3), seed=0)


def test_choices_are_uniform() -> None:
    """On a law that accepts every tree: acceptance by length would favour many arguments."""
    law = ListOpsLaw(min_length=0, max_length=10**6, max_depth=4, max_args=10)
    trees = [tree for index in range(4) for tree in parsed(draw_block(law, 1, index))]
    assert len(trees) == 4 * BLOCK
    _is_uniform(Counter(n for tree in trees for n in tree.arguments), range(2, 11))
    _is_uniform(
        Counter(n for tree in trees for n in tree.operators), ["[MIN", "[MAX", "[MED", "[SM"]
    )
    _is_uniform(Counter(n for tree in trees for n in tree.digits), range(10))
    roots = sum(tree.depth > 1 for tree in trees)
    assert abs(roots / len(trees) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / len(trees))


def _is_uniform(counts: Counter, choices) -> None:  # type: ignore[type-arg]
    assert set(counts) == set(choices)
    n, p = counts.total(), 1 / len(counts)
    for choice, count in counts.items():
        assert abs(count / n - p) < 4.5 * math.sqrt(p * (1 - p) / n), choice


def test_repeats_are_dropped() -> None:
    law = ListOpsLaw(min_length=0, max_length=12, max_depth=3, max_args=3)
    found = [texts(rows) for rows in collect(2_000, law, seed=0)]
    drawn = [text for index in range(len(found)) for text in texts(draw_block(law, 0, index))]
    assert [*itertools.chain(*found)] == [*dict.fromkeys(drawn)][:2_000]
    assert len(set(drawn)) < len(drawn)


@pytest.mark.long
def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    files = []
    for workers in (1, 4):
        files.append(tmp_path / f"{workers}.tsv")
        write_tsv(files[-1], collect(2_500, REAL, seed=3, workers=workers))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not multiprocessing.active_children()


def test_fewer_trees_are_the_first_of_more() -> None:
    few, more = collect(100, REAL, seed=3), collect(900, REAL, seed=3)
    assert texts(few[0]) == [text for rows in more for text in texts(rows)][:100]


def test_another_seed_gives_other_trees() -> None:
    first, second = (set(texts(collect(300, REAL, seed)[0])) for seed in (0, 1))
    assert not first & second


def test_the_trees_of_a_seed_are_frozen() -> None:
    """If this fails, the law or its drawing changed: raise ``ListOps.version``."""
    assert digest(collect(100, REAL, seed=0)) == FROZEN


FROZEN = "51d6e7bb7b125e557a11190de20ca09642830e78c99a321b26bad6f59b0967f8"
