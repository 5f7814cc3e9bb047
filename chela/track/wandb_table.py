"""A sweep's table in Weights & Biases: one more run of its group, updated when it is repeated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chela.config.settings import LoggerConfig
from chela.records.collect import collect
from chela.records.files import as_typed
from chela.records.record import FILE
from chela.report.frame import Report
from chela.report.published import published
from chela.report.render import shown, write
from chela.report.table import build
from chela.track.wandb_run import logger_of, open_wandb, wandb_mode
from tasks.errors import UserError
from tasks.screen import Screen


def log_table(name: str, folder: Path, runs: Sequence[Path], console: Screen) -> None:
    """Log the table of a sweep's runs and the report's files; say where they are.

    The run's id is derived from the sweep's name, so that a repeat updates it. What W&B does not
    take is said in a line; runs that left no record are left out.

    Args:
        name: of the sweep.
        folder: of the sweep; the files are written there.
        runs: the folders of its runs.
        console: for that line.

    Raises:
        OSError: the files cannot be written.
    """
    there = [run for run in runs if (run / FILE).exists()]
    found = collect(there) if there else None
    if found is None or not found.runs:
        return
    try:
        logger = logger_of(found.runs[0].record)
        if wandb_mode(logger) == "disabled":
            return
        report = build(found, published())
        where = _log(report, name, logger, folder)
    except UserError as error:
        where = f"not in W&B ({error})"
    console.say(f"the sweep's table: {where}\nits files: {as_typed(folder)}")


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
    run.log_files({"table": wandb.Table(columns=heads, data=rows)}, artifact)
    run.close()
    if run.delivered:
        return f"W&B {run.describe()}"
    if run.mode == "offline":
        return f"W&B offline, to upload it: {run.sync_command()}"
    return "not yet in W&B, repeat the command to send it"


def paper_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """The heads and the rows of the table: models by tasks, ``58.20 ± 0.31 (3)`` in a cell."""
    heads = ["model", *map(report.heading, report.columns)]
    return heads, [[row.name, *map(_text, cells)] for row, cells in report.ours]


def _text(cell: Any) -> str:
    text = shown(cell)
    return "" if cell.state == "missing" else f"{text.main} {text.beside}".strip()
