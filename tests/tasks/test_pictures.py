"""What a person looks at: samples as text, the picture, the table."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.image import imread
from rich.console import Console

from tasks.listops.task import ListOps, tree_text
from tasks.show.pictures import draw_sheet
from tasks.show.table import table
from tests.tasks.samples import ready
from tests.tasks.test_forms import numbers

Make = Callable[..., ListOps]


@pytest.mark.parametrize(
    ("tree", "outline"),
    [
        ("7", "7"),
        ("[MAX 3 5 ]", "[MAX\n  3 5 ]"),
        ("[MIN 2 [SM 4 4 ] 9 ] <eos>", "[MIN\n  2\n  [SM\n    4 4 ]\n  9 ]"),
    ],
)
def test_a_tree_is_an_outline(tree: str, outline: str) -> None:
    assert tree_text(numbers(tree)) == outline


def test_an_outline_holds_the_whole_tree(listops: Make) -> None:
    task = ready(listops())
    for index in range(13):
        assert numbers(task.sample("test", index)) == task.test[index]["values"][:-1]


def test_the_picture_is_written_and_the_same_twice(listops: Make, tmp_path: Path) -> None:
    task = ready(listops())
    files = [tmp_path / "new" / f"{name}.png" for name in "ab"]
    for file in files:
        draw_sheet(task, file)
    height, width, _ = imread(files[0]).shape
    assert height > 900
    assert width > 1200
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_table_states_what_is_there(listops: Make) -> None:
    task = ready(listops())
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(task))
    shown = console.export_text()
    for part in ("listops (generated)", "18 symbols", "heldout", "70", "11", "13"):
        assert part in shown
    assert task.meta.fingerprint in shown
