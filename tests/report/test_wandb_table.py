"""The table that W&B is given: the report's own numbers, in its own words."""

from __future__ import annotations

from chela.report.table import build
from chela.track.wandb_table import paper_table
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
