"""The table that W&B is given: the report's own numbers, in its own words."""

from __future__ import annotations

import pytest

from chela.report.table import build
from chela.track.wandb_table import CELL_COLUMNS, cell_rows, paper_table
from tests.records.samples import found, run

RUNS = [
    run(seed=0, accuracy=0.5),
    run(seed=1, accuracy=0.6),
    run(task="image", seed=0, accuracy=0.4),
    run("s4d", seed=0, status="failed", accuracy=None),
]


def test_models_by_the_tasks_that_were_run() -> None:
    heads, rows = paper_table(build(found(*RUNS)))
    assert heads == ["model", "ListOps", "Image"]
    assert rows == [["chela", "55.00 ± 7.07 (2)", "40.00 (1)"], ["s4d", "failed", ""]]


def test_an_average_stands_beside_its_tasks() -> None:
    five = [run(task=task) for task in ["listops", "text", "retrieval", "image", "pathfinder"]]
    heads, rows = paper_table(build(found(*five)))
    assert rows[0][heads.index("Avg. of 5")] == "50.00"


def test_cells_are_numbers() -> None:
    rows = [dict(zip(CELL_COLUMNS, row, strict=True)) for row in cell_rows(build(found(*RUNS)))]
    assert [(row["model"], row["task"], row["n"], row["state"]) for row in rows] == [
        ("chela", "ListOps", 2, "finished"),
        ("chela", "Image", 1, "finished"),
        ("s4d", "ListOps", 0, "failed"),
    ]
    assert rows[0]["mean"] == pytest.approx(55)
    assert rows[0]["std"] == pytest.approx(50**0.5)
    assert (rows[1]["std"], rows[2]["mean"]) == (None, None)
