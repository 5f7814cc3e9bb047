"""The table that W&B is given: the report's own numbers, in its own words."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from chela.report.table import build
from chela.track.wandb_table import log_table, paper_table
from tasks.screen import Screen
from tests.records.samples import found, record, run, save

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


@pytest.mark.parametrize(
    ("logger", "said"),
    [
        ({"wandb": "offline"}, "W&B offline"),  # a key is younger than the run
        ({"wandb": "offline", "gone": 1}, "not in W&B (unknown key 'logger.gone'"),
        (None, "not in W&B (logger.wandb is missing"),
    ],
)
def test_a_cell_that_another_version_has_finished_does_not_end_the_sweep(
    logger: dict[str, object] | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = record()
    content["config"]["logger"] = logger
    folder, shown = save(tmp_path, content).parent, io.StringIO()
    monkeypatch.setattr("chela.track.wandb_table._log", lambda *_: "W&B offline")
    log_table("small", tmp_path, [folder], Screen(file=shown))
    assert f"the sweep's table: {said}" in shown.getvalue()
