"""A sweep's table in Weights & Biases: one more run of its group, updated when it is repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from chela.config import as_dict, parse
from chela.errors import ChelaError
from chela.records.cells import Cell
from chela.records.collect import collect
from chela.records.figures import percent, spread
from chela.records.outputs import write
from chela.records.published import published
from chela.records.report import Report
from chela.records.table import build
from chela.training.folder import RunFolder
from chela.training.settings import LoggerConfig
from chela.training.wandb_run import open_wandb, wandb_mode
from tasks.errors import DataError

CELL_COLUMNS = ("model", "variant", "task", "mean", "std", "n", "state")


def place(composed: DictConfig | None) -> dict[str, Any] | None:
    """Where a cell's run lies and how it is logged, as JSON values; None if it cannot be run.

    Args:
        composed: the cell's configuration, as its job was given it.
    """
    if composed is None:
        return None
    try:
        config = parse(composed)
    except ChelaError:  # the cell's own error has said it
        return None
    folder = RunFolder(config).path
    return {
        "folder": str(folder),
        "output_dir": config.output_dir,
        "logger": as_dict(config)["logger"],
    }


def log_table(name: str, places: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Log the table of a sweep's runs and the report's files; say where they are.

    The files are in ``<output_dir>/<name>``. The run's id is derived from the sweep's name, so that
    a repeat updates it. Nothing here fails a sweep: what W&B does not take is said in a line.

    Args:
        name: of the sweep.
        places: as from ``place``.
        console: for that line.
    """
    there = [place for place in places if Path(place["folder"], "record.json").is_file()]
    if not there:
        return
    logger = LoggerConfig(**there[0]["logger"])
    if wandb_mode(logger) == "disabled":
        return
    folder = Path(there[0]["output_dir"]) / name
    try:
        report = build(collect(Path(place["folder"]) for place in there), published())
        where = _log(report, name, logger, folder)
    except (ChelaError, DataError) as error:
        where = f"not in W&B ({error})"
    console.print(
        f"the sweep's table: {where}; its files: {folder}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _log(report: Report, name: str, logger: LoggerConfig, folder: Path) -> str:
    import wandb

    files = write(report, folder)
    run = open_wandb(
        logger,
        wandb_mode(logger),
        folder,
        run_id=f"{name}-report",
        group=name,
        tags=["report"],
        content={"sweep": name},
        job_type="report",
    )
    heads, rows = paper_table(report)
    artifact = wandb.Artifact(f"{name}-report", type="report")
    for file in files:
        artifact.add_file(str(file))
    run.log_files(
        {
            "table": wandb.Table(columns=heads, data=rows),
            "cells": wandb.Table(columns=list(CELL_COLUMNS), data=cell_rows(report)),
        },
        artifact,
    )
    run.close()
    if run.delivered:
        return f"W&B {run.describe()}"
    if run.mode == "offline":
        return f"W&B offline, to upload it: {run.sync_command()}"
    return "not yet in W&B, repeat the command to send it"


def paper_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """The heads and the rows of the table: models by tasks, ``58.20 ± 0.31 (3)`` in a cell.

    Columns in which our rows have neither a number nor a run are left out.
    """
    used = [
        index
        for index in range(len(report.columns))
        if any(row.cells[index].runs or row.cells[index].mean is not None for row in report.ours)
    ]
    heads = ["model", *(report.columns[index].title for index in used)]
    return heads, [[row.name, *(_text(row.cells[i]) for i in used)] for row in report.ours]


def cell_rows(report: Report) -> list[list[Any]]:
    """The cells that have runs under ``CELL_COLUMNS``, as numbers; accuracies in %."""
    return [
        [
            row.model,
            row.label,
            column.title,
            cell.mean,
            cell.std,
            cell.seeds,
            cell.state if cell.mean is None else "finished",
        ]
        for row, column, cell in report.cells()
        if cell.runs
    ]


def _text(cell: Cell) -> str:
    if cell.mean is None:
        return "" if cell.state == "missing" else cell.state
    seeds = f" ({cell.seeds})" if cell.seeds else ""
    return f"{percent(cell.mean)}{spread(cell.std)}{seeds}"
