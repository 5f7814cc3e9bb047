"""A sweep: one cell that fails does not stop the others, and the end says what became of each."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep, Sweep
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from chela.config.choices import CONFIGS
from chela.config.command import command_line, typed
from chela.disk import given_folder
from chela.errors import ConfigError, InUse
from chela.launch.cli import JobFailed, explain, is_plain
from chela.launch.launcher import end_with_the_sweep
from chela.launch.turns import FOLDER, run_folder
from chela.records import sweeps
from chela.records.progress import cells_table
from chela.records.sweeps import Plan, SweepCell
from tasks.errors import first_line
from tasks.lease import Taken, hold
from tasks.screen import Screen

MANY = 20  # cells that take some seconds to compose, before the first of them begins


def _not_a_warning(method: Callable[..., None]) -> Callable[..., None]:
    """Hydra makes warnings of what a callback raises, and goes on: carry it past, see JobFailed."""

    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> None:
        try:
            method(*arguments, **options)
        except Exception as error:
            raise JobFailed(error) from error

    return call


class SweepCallback(Callback):
    """Hydra calls this around a sweep, around each cell in the cell's process, after a run.

    What one of these raises ends the command, with a message and status 1.
    """

    def __init__(self) -> None:
        self._lease = contextlib.ExitStack()  # held while the sweep runs
        self._words: list[str] = []  # of the sweep's command line
        self._environment: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For cells on other machines: what their environment is to have, and not the lease."""
        return {**self.__dict__, "_lease": contextlib.ExitStack()}

    @_not_a_warning
    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Name the sweep after its cells: the same command continues the same sweep.

        Raises:
            ConfigError: torchrun or srun has started it several times at once, as one run; or
                its folder has an empty path.
        """
        refuse_one_run(
            "-m",
            "one cell without -m; jobs of a process each, all with the same -m; or "
            "hydra/launcher=slurm",
        )
        place = given_folder(str(config.hydra.sweep.dir), "output_dir=")
        cells = planned_cells(config)
        name = _name(config, cells)
        folder = Path(place, sweeps.FOLDER, name).absolute()
        self._environment = {sweeps.NAME: name, FOLDER: str(folder)}
        self._words = list(sys.argv)
        os.environ.update(self._environment)
        folder.mkdir(parents=True, exist_ok=True)
        command = typed(command_line(sys.argv))
        try:
            self._lease.enter_context(hold(folder / sweeps.LEASE, vital=False))
        except Taken:  # another process is at the same sweep: the plan is its
            return
        if len(cells) >= MANY:
            Screen().say(f"{name}: composing the configurations of {len(cells)} cells ...")
        sweeps.write_plan(folder, Plan(name, command, cells))

    @_not_a_warning
    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Say where the cell's run will be; paths count from where the command was started."""
        os.chdir(config.hydra.runtime.cwd)  # hydra.job.chdir=true has gone elsewhere
        os.environ.update(self._environment)
        sys.argv = self._words or sys.argv  # Slurm's and Ray's processes have a command of theirs
        if not _keeps_the_cell():
            return
        end_with_the_sweep()
        folder, run = os.environ[FOLDER], run_folder(config)
        # Hydra's sweeper has left its configuration in the output_dir; the plan says the same
        Path(folder).parents[1].joinpath("multirun.yaml").unlink(missing_ok=True)
        place = None if run is None else os.path.relpath(run, folder)  # so that both can be moved
        cell, number = SweepCell(list(config.hydra.overrides.task), place), config.hydra.job.num
        known = sweeps.read_cells(Path(folder)).get(number)
        is_placed = known is not None and known.folder is not None
        # what became of it before does not count, but what becomes of it in another process does
        if sweeps.runner(Path(folder), cell) is None or not is_placed:
            sweeps.write_cell(Path(folder), number, cell)

    @_not_a_warning
    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Keep what became of a cell, and let the sweep go on if it failed."""
        if not _keeps_the_cell():
            return
        error = None
        if job_return.status == JobStatus.FAILED:
            failure = job_return._return_value  # the property would raise it
            error = explain(failure)
            if isinstance(failure, InUse):  # the other process keeps what becomes of it
                if config.hydra.mode == RunMode.MULTIRUN:  # else the exit status says it
                    Screen().say(first_line(failure))
                    job_return.status, job_return.return_value = JobStatus.COMPLETED, float("nan")
                return
            if not is_plain(failure):
                Screen(stderr=True).say("".join(traceback.format_exception(failure)))
            job_return.status, job_return.return_value = JobStatus.COMPLETED, float("nan")
        best = None if error else job_return.return_value
        sweeps.finish_cell(Path(os.environ[FOLDER]), config.hydra.job.num, error, best)

    @_not_a_warning
    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Hand on what a run raised."""
        job_return: JobReturn = kwargs["job_return"]
        if job_return.status == JobStatus.FAILED:
            raise job_return._return_value  # the property would write a line first

    @_not_a_warning
    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print a line per cell; the exit status is 0 if all are finished and this went well."""
        from chela.track import wandb_table  # here, so that --help need not wait for torch

        folder = Path(os.environ.pop(FOLDER))
        name = os.environ.pop(sweeps.NAME)
        self._lease.close()
        plan, known = sweeps.read_plan(folder), sweeps.read_cells(folder)
        # what is planned and left no word has not finished either
        planned = enumerate(plan.cells if plan else [])
        lost = {n: SweepCell(each, error="left no word of its end") for n, each in planned}
        cells = [cell for _, cell in sorted((lost | known).items())]
        # another process that was given the same sweep may be at it
        runs = [cell for cell in cells if cell.error is None and sweeps.runner(folder, cell)]
        ended = [cell for cell in cells if cell not in runs]
        failed = [cell for cell in ended if cell.error is not None or cell.best is None]
        console = Screen()
        console.print(cells_table(name, folder, cells))
        try:
            folders = [folder / cell.folder for cell in cells if cell.folder]
            wandb_table.log_table(name, folder, folders, console)
        finally:
            if runs:
                console.say(f"{len(runs)} of {len(cells)} cells are run by other processes")
            if failed:
                console.say(
                    f"{len(failed)} of {len(cells)} cells failed; repeat the command to run them "
                    "again, the finished ones are kept"
                )
        if failed:
            sys.exit(1)


def refuse_one_run(what: str, remedy: str) -> None:
    """Of what is several runs, begun in processes that are one.

    Raises:
        ConfigError: torchrun or srun has started several at once.
    """
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        if os.environ.get(name, "1") != "1":
            count = os.environ[name]
            raise ConfigError(f"{what} in {count} processes that are one run.\n  try: {remedy}")


def refuse_several_devices(composed: DictConfig) -> None:
    """Of a cell in the sweep's own process: those that it started would begin the sweep again.

    Raises:
        ConfigError: it asks for more devices than one, and nothing outside has started them.
    """
    from chela.training.distributed import is_started_outside  # here, for --help as well

    devices = OmegaConf.select(composed, "trainer.devices")
    is_cell = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if is_cell and isinstance(devices, int) and devices > 1 and not is_started_outside():
        raise ConfigError(
            f"trainer.devices={devices}: a cell on several devices needs a process of its own.\n"
            "  try: hydra/launcher=processes; of a job of Slurm: "
            f"hydra.launcher.tasks_per_node={devices}"
        )


def planned_cells(config: DictConfig) -> list[list[str]]:
    """The overrides of every cell of a sweep, in order, as Hydra's own sweeper will have them.

    Returns:
        One list per cell; none if another sweeper decides step by step.

    Raises:
        ConfigError: a list of values has a range or another list within; there is no cell.
    """
    if not str(config.hydra.sweeper._target_).endswith(f".{BasicSweeper.__name__}"):
        return []
    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(config_loader=loader)
    overrides = parser.parse_overrides([*_params(config), *config.hydra.overrides.task])
    for override in overrides:
        _refuse_nested(override)
    (batch,) = BasicSweeper.split_arguments(overrides, None)
    if not batch:
        raise ConfigError(f"{' '.join(config.hydra.overrides.task)}: there is nothing to run")
    return batch


def _refuse_nested(override: Override) -> None:
    """Of ``seed=0,range(3,5)`` Hydra says nothing that helps.

    Raises:
        ConfigError: what to type instead.
    """
    value = override.value()
    if not isinstance(value, ChoiceSweep) or not any(isinstance(v, Sweep) for v in value.list):
        return
    flat: list[Any] = []
    for each in value.list:
        inner = each.range() if isinstance(each, RangeSweep) else getattr(each, "list", [each])
        flat += inner
    words = ",".join(str(each) for each in flat)
    raise ConfigError(
        f"{override.input_line}: a list of values cannot have a range or a list within.\n"
        f"  try: {override.get_key_element()}={words}"
    )


def _keeps_the_cell() -> bool:
    """Whether this process writes what becomes of a cell: of several devices' only the first."""
    ranks = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # in the order in which Lightning looks
    rank = next((os.environ[name] for name in ranks if name in os.environ), "0")
    return FOLDER in os.environ and rank == "0"


def _name(config: DictConfig, cells: list[list[str]]) -> str:
    """Of a sweep's folder: with the order of its cells, so that a number in it is one cell's."""
    content: object = cells or [*_params(config), *config.hydra.overrides.task]
    sources = [each.path for each in config.hydra.runtime.config_sources]
    if own := [each for each in sources if each not in ("hydra.conf", str(CONFIGS), "")]:
        content = [content, own]  # the same words mean something else with other files
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
    chosen = str(config.hydra.runtime.choices.get("sweep", "sweep"))
    return f"{chosen.replace('/', '-')}-{digest}"  # one folder, one group in W&B


def _params(config: DictConfig) -> list[str]:
    """``hydra.sweeper.params``, what a file of the group ``sweep`` varies, as overrides."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return [f"{key}={value}" for key, value in params.items()]
