"""Windows of a corpus: what is asked how often, and the same from the file and from a device."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.errors import DataError
from tasks.language.corpus import as_rows
from tasks.language.windows import Windows
from tasks.order import TrainOrder
from tasks.storage.meta import Origin
from tasks.storage.rows import NOTHING
from tasks.storage.store import Recipe, load, prepare


def windows(
    folder: Path, tokens: int, length: int, context: int | None, dtype: str = "uint16"
) -> Windows:
    """Of a text whose tokens are their places, in rows and record batches of odd sizes."""
    places = np.arange(tokens).astype(dtype)

    def rows():
        for part in np.array_split(places, 3):
            yield "train", as_rows([each for each in np.array_split(part, 4) if len(each)])

    prepare(folder, Recipe(Origin("toy", 1, "toy", {}), dtype, rows), show=False)
    return Windows(load(folder).splits["train"], length, context, "train")


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
@pytest.mark.parametrize(
    ("tokens", "length", "context"),
    [(41, 8, 0), (41, 8, 5), (41, 8, 7), (42, 8, 6), (9, 8, 4), (10, 8, 7), (70_000, 512, 256)],
)
def test_in_a_test_each_token_is_scored_once_behind_its_context(
    tmp_path: Path, tokens: int, length: int, context: int, dtype: str
) -> None:
    if tokens > 2**16 and dtype == "uint16":
        tokens = 2**16
    found = windows(tmp_path / "toy", tokens, length, context, dtype)
    rows = list(range(len(found)))
    batch = found.on_disk().__getitems__(rows)
    assert batch.values.shape == batch.targets.shape == (len(found), length)
    assert (batch.lengths == length).all()
    asked = batch.targets != NOTHING
    assert torch.equal(batch.targets[asked], batch.values[asked] + 1)
    assert torch.equal(batch.targets[asked].sort().values, torch.arange(1, tokens))
    assert found.targets == tokens - 1 == int(asked.sum())
    # whatever is scored has at least the context before it, or the whole text
    place = torch.arange(length).expand_as(asked)[asked]
    assert ((place >= context) | (place == batch.values[asked])).all()
    resident = found.on_device(torch.device("cpu")).read([rows])
    for one, other in zip(batch, next(iter(resident)), strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype == torch.int64


def test_in_training_an_epoch_asks_no_token_twice_and_the_next_cuts_elsewhere(
    tmp_path: Path,
) -> None:
    found = windows(tmp_path / "toy", 1000, 64, None)
    assert len(found) == 15
    cuts = []
    for epoch in range(8):
        rows = [epoch * 15 + each for each in range(15)]
        batch = found.on_disk().__getitems__(rows)
        assert torch.equal(batch.targets, (batch.values + 1) % 1000)
        assert len(batch.targets.unique()) == 15 * 64 == found.targets
        assert batch.index.tolist() == rows
        cuts.append(int(batch.values[0, 0]))
        resident = found.on_device(torch.device("cpu")).batch(rows)
        assert all(torch.equal(*both) for both in zip(batch, resident, strict=True))
    assert cuts[0] == 0
    gaps = np.diff(sorted([*cuts, 64]))
    assert gaps.min() >= 3 and gaps.max() <= 16  # evenly spread over a window


def test_the_order_is_a_law_with_numbers_of_their_own_for_each_epoch() -> None:
    whole = TrainOrder(10, 4, 10, seed=3, endless=True)
    batches = list(whole)
    numbers = np.array(batches).flatten()
    for epoch in range(4):
        assert sorted(numbers[10 * epoch : 10 * epoch + 10]) == list(
            range(10 * epoch, 10 * epoch + 10)
        )
    assert not np.array_equal(numbers[:10], numbers[10:20] - 10)
    later = TrainOrder(10, 4, 10, seed=3, endless=True)
    assert list(later.between(6, 10)) == batches[6:]
    plain = np.array(list(TrainOrder(10, 4, 10, seed=3))).flatten()
    assert np.array_equal(plain, numbers % 10)


def test_what_reads_travels_to_other_processes(tmp_path: Path) -> None:
    reader = windows(tmp_path / "toy", 100, 8, 4).on_disk()
    before = reader.__getitems__([3, 1])
    after = pickle.loads(pickle.dumps(reader)).__getitems__([3, 1])
    assert all(torch.equal(*both) for both in zip(before, after, strict=True))


@pytest.mark.parametrize("context", [None, 4])
def test_a_text_shorter_than_a_window_is_refused(tmp_path: Path, context: int | None) -> None:
    with pytest.raises(DataError, match=r"8 tokens in train.*8(.|\n)*try: task.length=4"):
        windows(tmp_path / "toy", 8, 8, context)
