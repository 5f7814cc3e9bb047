"""The held-out tenth: torch's own split with seed 42, and the last tenth."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import random_split

from tasks.bits import shuffled
from tasks.image.task import held_out
from tasks.pathfinder.official import membership


@given(st.integers(0, 700), st.integers(0, 2**32 - 1))
def test_the_shuffle_is_torchs(count: int, seed: int) -> None:
    """More than 624 draws: the twister's state turns over."""
    generator = torch.Generator().manual_seed(seed)
    assert shuffled(count, seed).tolist() == torch.randperm(count, generator=generator).tolist()


@pytest.mark.parametrize("count", [50_000, 60_000, 27])
def test_s4s_split_is_the_one_its_code_draws(count: int) -> None:
    size = int(count * (1.0 - 0.1))
    generator = torch.Generator().manual_seed(42)
    train, val = random_split(range(count), (size, count - size), generator=generator)
    held = held_out(count, "s4")
    assert np.flatnonzero(held).tolist() == sorted(val.indices)
    assert np.flatnonzero(~held).tolist() == sorted(train.indices)


def test_s4s_splits_stay_whatever_torch_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n))
    assert np.flatnonzero(membership(200_000) == 2)[:5].tolist() == [1, 11, 15, 37, 53]
    held = np.flatnonzero(held_out(50_000, "s4"))
    assert len(held) == 5_000
    found = hashlib.sha256(held.astype("<i8").tobytes()).hexdigest()
    assert found == "b2c440e58c0b3918601588fcc805903341477a7d30d3bb3fddb3849831e7b7a8"


@pytest.mark.parametrize("count, first", [(50_000, 45_000), (60_000, 54_000), (27, 24), (1, 0)])
def test_tays_split_is_the_end(count: int, first: int) -> None:
    assert np.flatnonzero(held_out(count, "tay")).tolist() == list(range(first, count))
