"""The forms of a sample that have its class: pictures that are turned, arguments in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tasks.listops.arguments import Reordered
from tasks.listops.generator import ListOpsLaw, draw_block
from tasks.listops.task import ListOps, ListOpsConfig
from tasks.listops.values import values_of
from tasks.listops.vocabulary import EOS, PAD, SYMBOLS
from tasks.loader import Batch
from tasks.pictures import mirrored, turned


def batch_of(values: Tensor) -> Batch:
    size, length = values.shape[:2]
    return Batch(values, torch.full((size,), length), torch.arange(size), torch.arange(size))


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_picture_has_its_eight_forms(channels: tuple[int, ...]) -> None:
    pictures = torch.rand(8, 4, 4, *channels)
    seen = turned(batch_of(pictures.flatten(1, 2)), torch.arange(8)).values
    for row, picture in enumerate(pictures):
        expected = picture.numpy()
        expected = np.fliplr(expected) if row & 1 else expected
        expected = np.flipud(expected) if row & 2 else expected
        expected = expected.swapaxes(0, 1) if row & 4 else expected
        assert (seen[row].view(picture.shape).numpy() == expected).all()
    same = turned(batch_of(pictures[:1].expand_as(pictures).flatten(1, 2)), torch.arange(8))
    assert len(same.values.unique(dim=0)) == 8


@pytest.mark.parametrize(("draw", "forms"), [(mirrored, 2), (turned, 8)])
def test_each_form_comes_as_often(draw: Callable[[Batch], Batch], forms: int) -> None:
    torch.manual_seed(0)
    pictures = torch.arange(9).expand(8000, 9)
    found, often = draw(batch_of(pictures)).values.unique(dim=0, return_counts=True)
    assert len(found) == forms
    assert often.float() / 8000 == pytest.approx([1 / forms] * forms, abs=0.02)
    assert [2, 1, 0, 5, 4, 3, 8, 7, 6] in found.tolist()


def numbers(text: str) -> list[int]:
    return [SYMBOLS.index(word) for word in text.split()]


def trees(*texts: str) -> Batch:
    """With an end symbol each, and padding behind the shorter ones."""
    rows = [torch.tensor([*numbers(text), EOS]) for text in texts]
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    return batch_of(values)._replace(lengths=torch.tensor([len(row) for row in rows]))


def tree(rest: Iterator[str]) -> str | None:
    """What begins here, its arguments sorted; None: a bracket closes."""
    word = next(rest)
    if word == "]" or word.isdigit():
        return None if word == "]" else word
    return f"{word} {' '.join(sorted(iter(partial(tree, rest), None)))} ]"


def words(symbols: Tensor) -> str:
    return " ".join(SYMBOLS[each] for each in symbols.tolist() if each not in (PAD, EOS))


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 12))
def test_no_value_depends_on_the_order_of_arguments(seed: int, args: int, depth: int) -> None:
    torch.manual_seed(seed)
    law = ListOpsLaw(0, 80, depth, args, 0.6)
    rows = draw_block(law, seed, 0)
    ends = np.cumsum(rows.lengths)[:9]
    texts = [
        " ".join(SYMBOLS[each] for each in rows.values[end - length : end])
        for end, length in zip(ends, rows.lengths, strict=False)
    ]
    batch = trees(*texts)
    seen = Reordered(depth)(batch)
    assert torch.equal(seen.values == PAD, batch.values == PAD)
    assert torch.equal(seen.values == EOS, batch.values == EOS)
    for before, after in zip(batch.values, seen.values, strict=True):
        whole = [np.array([*x[(x != PAD) & (x != EOS)]], dtype=np.uint8) for x in (before, after)]
        assert values_of(whole[0]) == values_of(whole[1])
        assert tree(iter(words(before).split())) == tree(iter(words(after).split()))


def test_each_order_comes_as_often() -> None:
    torch.manual_seed(0)
    seen = Reordered(3)(trees(*["[MAX 1 [MIN 2 [SM 3 4 ] ] 5 ]"] * 6000)).values
    found, often = seen.unique(dim=0, return_counts=True)
    assert len(found) == 6 * 2 * 2
    assert often.float() / 6000 == pytest.approx([1 / 24] * 24, abs=0.01)
    assert "[MAX 5 1 [MIN [SM 4 3 ] 2 ] ]" in {words(each) for each in found}


@pytest.mark.parametrize("depth", [3, 14])
def test_the_deepest_arguments_of_a_task_change_places(depth: int, tmp_path: Path) -> None:
    augment = ListOps(ListOpsConfig(max_depth=depth), tmp_path).spec.augment
    assert augment is not None
    around, behind = "[MAX 0 " * (depth - 2), " ]" * (depth - 2)
    seen = augment(trees(*[f"{around}[SM 3 4 ]{behind}"] * 50)).values
    assert {("3 4" in words(each), "4 3" in words(each)) for each in seen} == {(1, 0), (0, 1)}


def test_what_lies_deeper_and_what_was_cut_keeps_its_order() -> None:
    deep = {words(each) for each in Reordered(1)(trees(*["[SM 7 [MED 1 2 3 ] ]"] * 50)).values}
    assert deep == {"[SM 7 [MED 1 2 3 ] ]", "[SM [MED 1 2 3 ] 7 ]"}
    cut = trees("[SM 1 2 3 [MAX 4 5", "7", "[MAX 8 ]")
    assert torch.equal(Reordered(3)(cut).values, cut.values)
