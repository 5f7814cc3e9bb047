"""A sweep: one cell that fails does not stop the others, and the end says what became of each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

import filelock
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from chela.cli import PLAIN, JobFailed, explain
from chela.errors import ChelaError
from chela.launcher import FOLDER, end_with_the_sweep
from chela.records import sweeps
from chela.records.record import read_record
from chela.records.sweeps import Plan, SweepCell
from tasks.screen import Screen

NAME = "CHELA_SWEEP"  # cells in other processes inherit it


def sweep_name() -> str | None:
    """The sweep that this process is a part of: its group in Weights & Biases; None outside one."""
    return os.environ.get(NAME)


class SweepCallback(Callback):
    """Hydra calls this around a sweep, around each cell in the cell's process, after a run."""

    def __init__(self) -> None:
        self._locks = contextlib.ExitStack()  # held while the sweep runs

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Name the sweep after what it varies: the same command continues the same sweep."""
        name = _name(config)
        folder = Path(str(config.hydra.sweep.dir), sweeps.FOLDER, name).absolute()
        os.environ[NAME], os.environ[FOLDER] = name, str(folder)
        folder.mkdir(parents=True, exist_ok=True)
        command = shlex.join(["python", *sys.argv])
        try:
            self._locks.enter_context(filelock.FileLock(folder / sweeps.LOCK, timeout=1))
        except filelock.Timeout:  # the same sweep twice: the plan is the other's, runs are locked
            return
        sweeps.write_plan(folder, Plan(name, command, planned_cells(config)))

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Say where the cell's run will be."""
        if not _keeps_the_cell():
            return
        end_with_the_sweep()
        folder, run = os.environ[FOLDER], _run_folder(config)
        # Hydra's sweeper has left its configuration in the output_dir; the plan says the same
        Path(folder).parents[1].joinpath("multirun.yaml").unlink(missing_ok=True)
        place = None if run is None else os.path.relpath(run, folder)  # so that both can be moved
        cell = SweepCell(list(config.hydra.overrides.task), place)
        sweeps.write_cell(Path(folder), config.hydra.job.num, cell)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Keep what became of a cell, and let the sweep go on if it failed."""
        if not _keeps_the_cell():
            return
        error = None
        if job_return.status == JobStatus.FAILED:
            failure = job_return._return_value  # the property would raise it
            error = explain(failure)
            if not isinstance(failure, PLAIN):
                Screen(stderr=True).say("".join(traceback.format_exception(failure)))
            job_return.status, job_return.return_value = JobStatus.COMPLETED, float("nan")
        best = None if error else job_return.return_value
        sweeps.finish_cell(Path(os.environ[FOLDER]), config.hydra.job.num, error, best)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Hand on what a run raised.

        Raises:
            JobFailed: it failed.
        """
        job_return: JobReturn = kwargs["job_return"]
        if job_return.status == JobStatus.FAILED:
            raise JobFailed(job_return._return_value)  # the property would write a line first

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print a line per cell; the exit status is 1 if one of them failed."""
        from chela.training import wandb_table  # here, so that --help need not wait for torch

        folder = Path(os.environ.pop(FOLDER))
        name = os.environ.pop(NAME)
        self._locks.close()
        cells = list(sweeps.read_cells(folder).values())
        console = Screen()
        console.print(cells_table(name, folder, cells))
        wandb_table.log_table(name, folder, [cell.folder for cell in cells if cell.folder], console)
        failed = [cell for cell in cells if cell.error is not None]
        if failed:
            console.say(
                f"{len(failed)} of {len(cells)} cells failed; repeat the command to run them "
                "again, the finished ones are kept"
            )
            sys.exit(1)


def planned_cells(config: DictConfig) -> list[list[str]]:
    """The overrides of every cell of a sweep, in order, as Hydra's own sweeper will have them.

    Args:
        config: what Hydra composed for the sweep as a whole, with its section ``hydra``.

    Returns:
        One list per cell; none if another sweeper decides step by step.
    """
    if not str(config.hydra.sweeper._target_).endswith(f".{BasicSweeper.__name__}"):
        return []
    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(config_loader=loader)
    overrides = parser.parse_overrides([*_params(config), *config.hydra.overrides.task])
    (batch,) = BasicSweeper.split_arguments(overrides, None)
    return batch


def cells_table(name: str, folder: Path, cells: list[SweepCell]) -> Table:
    """What became of each cell of a sweep, with the accuracies of those finished.

    Args:
        name: of the sweep.
        folder: of the sweep, from where the runs' folders are told.
        cells: in order.
    """
    table = Table(title=name, title_justify="left")
    table.add_column("cell", overflow="fold")
    table.add_column("best validation", justify="right")
    table.add_column("test", justify="right")
    table.add_column("error", overflow="fold")
    varied = sweeps.varied([cell.overrides for cell in cells])
    for cell, overrides in zip(cells, varied, strict=True):
        best = "failed" if cell.best is None else f"{cell.best:.4f}"
        record = read_record(folder / cell.folder) if cell.folder and not cell.error else None
        tested = (record or {}).get("test")
        test = f"{tested['accuracy']:.4f}" if tested else ""
        table.add_row(" ".join(overrides), best, test, cell.error or "")
    return table


def _keeps_the_cell() -> bool:
    """Whether this process writes what becomes of a cell: of several devices' only the first."""
    return FOLDER in os.environ and os.environ.get("LOCAL_RANK", "0") == "0"


def _name(config: DictConfig) -> str:
    content = sorted([*config.hydra.overrides.task, *_params(config)])
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
    return f"{config.hydra.runtime.choices.get('sweep', 'sweep')}-{digest}"


def _params(config: DictConfig) -> list[str]:
    """``hydra.sweeper.params``, what a file of the group ``sweep`` varies, as overrides."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return [f"{key}={value}" for key, value in params.items()]


def _run_folder(config: DictConfig) -> Path | None:
    """Where the run of this configuration is; None if it cannot be run, which the run will say."""
    from chela.config import parse  # here, so that --help need not wait for torch
    from chela.training.folder import RunFolder

    try:
        return RunFolder(parse(config)).path
    except ChelaError:
        return None
