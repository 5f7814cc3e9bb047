"""Examples of a user's own: they become what the same sample is in a batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.base import Task
from tasks.errors import DataError
from tasks.image.gratings import Gratings, GratingsConfig
from tasks.image.task import Image, ImageConfig
from tasks.listops.task import ListOps
from tasks.pathfinder.task import Pathfinder, PathfinderConfig
from tasks.retrieval.pairs import HORIZONTAL
from tasks.retrieval.task import Retrieval, RetrievalConfig
from tests.tasks.rfcs import made, write_packed
from tests.tasks.samples import ready
from tests.tasks.small_images import write_cifar
from tests.tasks.test_text import Make, data_dir, text  # noqa: F401 (fixtures)

SIZES = {"num_train": 6, "num_val": 4, "num_test": 8}


def first(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and lengths of the test split's first batch."""
    batch = next(iter(ready(task).batches("test", 4)))
    return batch.values, batch.lengths


def samples(task: Task) -> list[Any]:
    return [task.sample("test", row) for row in range(4)]


def check(task: Task, examples: Callable[[Task], list[Any]] = samples) -> None:
    values, lengths = first(task)
    own_values, own_lengths = task.encode(examples(task))
    assert own_values.dtype == values.dtype
    assert torch.equal(own_values, values)
    assert torch.equal(own_lengths, lengths)


def own(data_dir: Path) -> dict[str, Any]:  # noqa: F811
    return {"data_dir": data_dir}


def test_trees(listops: Callable[..., ListOps]) -> None:
    check(listops())
    values, lengths = listops(max_tokens=4).encode(["[MAX 2 [MIN 4 7 ] 0 ]", "5"])
    assert values.tolist() == [[14, 5, 13, 2], [8, 2, 0, 0]]  # cut behind [MAX 2 [MIN, then the end
    assert lengths.tolist() == [4, 2]


@pytest.mark.parametrize("level", ["characters", "bytes"])
def test_texts(text: Make, level: str) -> None:  # noqa: F811
    check(text(level=level))


def test_pairs_of_texts(tmp_path: Path) -> None:
    write_packed(tmp_path / "rfc", *made())
    sizes = {"num_train": 60, "num_val": 10, "num_test": 20}
    config = RetrievalConfig(name="retrieval-rfc", data="rfc", **sizes)
    check(
        Retrieval(config, **own(tmp_path)),
        lambda task: [tuple(str(each).split(HORIZONTAL)) for each in samples(task)],
    )


@pytest.mark.long
def test_pictures(tmp_path: Path) -> None:
    check(Gratings(GratingsConfig(**SIZES), **own(tmp_path)))
    check(Pathfinder(PathfinderConfig(source="generated", workers=1, **SIZES), **own(tmp_path)))
    write_cifar(tmp_path)
    for name, channels in (("image", "grey"), ("cifar", "rgb")):
        config = ImageConfig(name=name, channels=channels, stand_in="small-cifar")
        check(Image(config, **own(tmp_path)))


def test_a_malformed_example_is_told_its_form(listops: Callable[..., ListOps], tmp_path) -> None:
    with pytest.raises(DataError, match=r"line 2, column 6: unknown symbol 'x'(.|\n)*\[MAX"):
        listops().encode(["[MAX 2 ]", "[MIN x ]"])
    gratings = Gratings(GratingsConfig(), **own(tmp_path))
    with pytest.raises(DataError, match=r"uint8 \(3, 3\), .* uint8 \(12, 12\)(.|\n)*Pillow"):
        gratings.encode([np.zeros((3, 3), dtype=np.uint8)])


def test_a_task_without_it_says_what_is_missing(listops: Callable[..., ListOps]) -> None:
    with pytest.raises(DataError, match=r"listops does not say(.|\n)*own_rows in ListOps"):
        Task.own_rows(listops(), [])
