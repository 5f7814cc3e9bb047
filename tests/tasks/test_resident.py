"""What a GPU gathers is what the disk has; here the device is the CPU, where the same code runs."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from tasks.characters import Alphabet
from tasks.image.pixels import Standardised
from tasks.loader import DiskReader, Encoding, TrainLoader
from tasks.order import TrainOrder
from tasks.padding import widths_up_to
from tasks.resident import DeviceReader
from tasks.retrieval.pairs import Pair, encode, separate
from tasks.storage.columns import lengths_of
from tasks.storage.meta import Origin
from tasks.storage.rows import Rows, offsets_of
from tasks.storage.store import Recipe, load, prepare

CPU = torch.device("cpu")


def stored(folder: Path, rows: Rows, block: int = 7) -> Dataset:
    """The rows as a prepared split, written in several blocks."""
    blocks = [
        ("train", rows.slice(start, min(start + block, len(rows.labels))))
        for start in range(0, len(rows.labels), block)
    ]
    prepare(folder, Recipe(Origin("toy", 1, "made", {}), str(rows.values.dtype), lambda: blocks))
    return load(folder).splits["train"]


def ragged(dtype: str, top: int, n: int = 50) -> Rows:
    draw = np.random.Generator(np.random.PCG64(1))
    lengths = draw.integers(1, 200, n)
    values = draw.integers(1, top, lengths.sum()).astype(dtype)
    return Rows(values, offsets_of(lengths), draw.integers(0, 10, n))


def pairs() -> Rows:
    texts = [("ab" * (i % 5 + 1), "c" * (3 * i + 1)) for i in range(20)]
    return encode([Pair(a, b, i % 2) for i, (a, b) in enumerate(texts)], Alphabet(), 40, True)


def images(channels: int) -> Rows:
    values = np.arange(9 * 16 * channels, dtype=np.uint8)
    return Rows(values, np.arange(10) * 16 * channels, np.arange(9))


CASES = {
    "symbols": (ragged("uint8", 256), Encoding()),
    "uint16": (ragged("uint16", 65_536), Encoding()),
    "pairs": (pairs(), Encoding(documents=2, separate=separate)),
    "grey": (images(1), Encoding(Standardised((0.5,), (0.2,)))),
    "colour": (images(3), Encoding(Standardised((0.5, 0.4, 0.3), (0.2, 0.3, 0.1)), channels=3)),
}


@pytest.fixture(scope="module", params=CASES)
def readers(request, tmp_path_factory) -> tuple[int, DiskReader, DeviceReader]:
    rows, encoding = CASES[request.param]
    dataset = stored(tmp_path_factory.mktemp("resident") / "toy", rows)
    return len(dataset), DiskReader(dataset, encoding), DeviceReader(dataset, encoding, CPU)


@given(data=st.data())
def test_a_batch_is_the_disks_but_for_padding(readers, data) -> None:
    n, disk, device = readers
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=12))
    expected, found = disk.__getitems__(rows), device.batch(rows)
    axis = expected.lengths.ndim  # of the positions
    length = expected.values.shape[axis]
    assert found.values.dtype == expected.values.dtype
    assert torch.equal(found.values.narrow(axis, 0, length), expected.values)
    assert not found.values.narrow(axis, length, found.values.shape[axis] - length).any()
    for mine, true in zip(found[1:], expected[1:], strict=True):
        assert mine.dtype == true.dtype
        assert torch.equal(mine, true)


@given(st.integers(1, 20_000))
def test_few_widths_and_none_beyond_the_longest(longest: int) -> None:
    found = widths_up_to(longest)
    assert found[-1] == longest
    assert found == sorted(set(found))
    assert not any(width % 16 for width in found[:-1])
    # at most an eighth of a batch's longest is padded, or as much as the multiples ask for
    assert all(b - a <= max(16, b / 9 + 1) for a, b in itertools.pairwise([0, *found]))
    assert len(found) <= 12 + 6 * math.log2(longest)


@given(rows=st.lists(st.integers(0, 49), min_size=1, max_size=12))
def test_the_disk_pads_to_the_same_widths_when_asked(tmp_path_factory, rows: list[int]) -> None:
    folder = tmp_path_factory.getbasetemp() / "widths"
    dataset = stored(folder, CASES["symbols"][0])
    widths = widths_up_to(int(lengths_of(dataset).max()))
    found = DiskReader(dataset, Encoding(), widths=widths).__getitems__(rows)
    expected = DeviceReader(dataset, Encoding(), CPU).batch(rows)
    assert all(torch.equal(mine, true) for mine, true in zip(found, expected, strict=True))


@pytest.mark.parametrize("window", [1, 8])
@pytest.mark.parametrize("case", [*CASES])
def test_the_widths_of_a_run_are_known_at_its_start(tmp_path, case, window) -> None:
    rows, encoding = CASES[case]
    dataset = stored(tmp_path / "widths", rows)
    lengths = lengths_of(dataset)
    grid = widths_up_to(int(lengths.max()))
    for reader in (
        DiskReader(dataset, encoding, widths=grid),
        DeviceReader(dataset, encoding, CPU),
    ):
        order = TrainOrder(len(dataset), 3, 40, seed=0, window=window, lengths=lengths)
        loader = TrainLoader(reader, order)
        shapes = [each.values.shape for each in loader.of_each_width()]
        if reader.widths is None:  # several sequences in a row, which is not read for it
            assert not shapes
            continue
        assert len(set(shapes)) == len(shapes)
        assert set(shapes) == {batch.values.shape for batch in loader}


def test_a_split_read_in_order(readers) -> None:
    n, disk, device = readers
    batches = [[0, 1], [n - 1]]
    for mine, true in zip(device.read(batches), disk.read(batches), strict=True):
        assert torch.equal(mine.targets, true.targets)
        assert torch.equal(mine.index, true.index)


def test_the_lengths_of_a_split(tmp_path: Path) -> None:
    rows = ragged("uint8", 256)
    assert lengths_of(stored(tmp_path / "toy", rows)).tolist() == rows.lengths.tolist()
