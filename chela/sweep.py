"""A sweep: one cell that fails does not stop the others, and the end says what became of each."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from chela.cli import PLAIN, explain

NAME, FOLDER = "CHELA_SWEEP", "CHELA_SWEEP_FOLDER"  # cells in other processes inherit them


def sweep_name() -> str | None:
    """The sweep that this process is a part of: its group in Weights & Biases; None outside one."""
    return os.environ.get(NAME)


class SweepCallback(Callback):
    """Hydra calls this around a sweep and each of its cells."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Name the sweep after its overrides: the same command continues the same sweep."""
        overrides = sorted(config.hydra.overrides.task)
        digest = hashlib.sha256(json.dumps(overrides).encode()).hexdigest()[:8]
        os.environ[NAME] = f"sweep-{digest}"
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="chela-sweep-")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Keep what became of a cell, and let the sweep go on if it failed."""
        if FOLDER not in os.environ:
            return
        from chela.training import wandb_table  # here, so that --help need not wait for torch

        error = None
        if job_return.status == JobStatus.FAILED:
            failure = job_return._return_value  # the property would raise it
            error = explain(failure)
            if not isinstance(failure, PLAIN):
                traceback.print_exception(failure)
            job_return.status, job_return.return_value = JobStatus.COMPLETED, float("nan")
        cell: dict[str, Any] = {"overrides": list(job_return.overrides or []), "error": error}
        cell["best"] = None if error else job_return.return_value
        cell["place"] = wandb_table.place(job_return.cfg)
        number = config.hydra.job.num
        Path(os.environ[FOLDER], f"{number:06d}.json").write_text(json.dumps(cell))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print a line per cell; the exit status is 1 if one of them failed."""
        folder = Path(os.environ.pop(FOLDER))
        name = os.environ.pop(NAME)
        cells = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
        shutil.rmtree(folder, ignore_errors=True)
        console = Console(width=None if sys.stdout.isatty() else 100)
        console.print(cells_table(name, cells))
        if places := [cell["place"] for cell in cells if cell["place"]]:
            from chela.training import wandb_table

            wandb_table.log_table(name, places, console)
        failed = [cell for cell in cells if cell["error"] is not None]
        if failed:
            console.print(
                f"{len(failed)} of {len(cells)} cells failed; repeat the command to run them "
                "again, the finished ones are kept"
            )
            sys.exit(1)


def cells_table(name: str, cells: list[dict[str, Any]]) -> Table:
    """What became of each cell of a sweep.

    Args:
        name: of the sweep.
        cells: each with ``overrides``, ``error`` (None: it finished) and ``best``, the best
            validation accuracy.
    """
    table = Table(title=name, title_justify="left")
    table.add_column("cell", overflow="fold")
    table.add_column("best validation", justify="right")
    table.add_column("error", overflow="fold")
    varied = _varied([cell["overrides"] for cell in cells])
    for cell, overrides in zip(cells, varied, strict=True):
        best = "failed" if cell["best"] is None else f"{cell['best']:.4f}"
        table.add_row(" ".join(overrides), best, cell["error"] or "")
    return table


def _varied(cells: list[list[str]]) -> list[list[str]]:
    """Each cell's overrides without those that all have in common."""
    common = set.intersection(*map(set, cells)) if len(cells) > 1 else set()
    return [[each for each in cell if each not in common] for cell in cells]
