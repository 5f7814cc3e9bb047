"""Cells of a sweep as jobs of Slurm, by submitit: each waits in the queue, and is requeued.

A cell that is pre-empted, or whose time is up, saves itself and goes on exactly when its job runs
again. What became of it stands in the sweep's folder, as with every launcher; the process that has
submitted the jobs waits for them, and may be ended: they go on.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher import submitit_launcher
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from omegaconf import OmegaConf

from chela.errors import ConfigError
from chela.launch.turns import FOLDER, PLUGIN, Cell, Turns, run_folder
from tasks.screen import Screen

EVERY = 10.0  # seconds between two looks at the queue, which everyone asks
OWN = ("submitit_folder", "max_num_timeout")  # what is said to submitit and not to Slurm


class SlurmLauncher(submitit_launcher.SlurmLauncher):
    """Hydra's launcher ``slurm``: the parameters are those of Hydra's launcher by submitit.

    That one waits for a result of each job, and raises where there is none: for a job that was
    killed it would not return, where Slurm keeps no accounts, or leave the others.
    """

    __module__ = PLUGIN

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Submit a job for each cell that is not finished, and wait until none is in the queue.

        Raises:
            ConfigError: Slurm does not take the jobs; the message is its own.
        """
        turns = Turns(Path(os.environ[FOLDER]), job_overrides, initial_job_idx)
        anew = OmegaConf.select(self.config, "resume") is False
        left: dict[str, Cell] = {}
        screen = Screen()
        cells = [
            cell
            for cell in turns.cells
            if anew or not turns.finished(cell, partial(self._run_folder, cell))
        ]
        if cells:
            left = dict(zip(self._submit(cells), cells, strict=True))
            folder = str(self.params["submitit_folder"])
            screen.say(f"{len(left)} jobs: {', '.join(left)}; their output is in {folder}")
            screen.say("they go on without this process; squeue shows them, scancel ends them")
        while left:
            time.sleep(EVERY)
            queued = in_queue()
            for job in [job for job in left if queued is not None and job not in queued]:
                cell = left.pop(job)
                log = str(self.params["submitit_folder"]).replace("%j", job)
                why = f"job {job} left no word of its end; see {log}"
                screen.say(f"{cell.label}: {turns.end(cell, why)}")
        return turns.returned()

    def _run_folder(self, cell: Cell) -> Path | None:
        loader = self.hydra_context.config_loader
        return run_folder(loader.load_sweep_config(self.config, cell.overrides))

    def _submit(self, cells: Sequence[Cell]) -> list[str]:
        """The numbers of the jobs."""
        import submitit  # here, for it takes a while

        # what a job unpickles is a class that it can import
        run = submitit_launcher.SlurmLauncher(**self.params)
        run.setup(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=self.config,
        )
        state = Singleton.get_state()
        given = [(c.overrides, "hydra.sweep.dir", c.number, str(c.number), state) for c in cells]
        general = {each.name for each in fields(BaseQueueConf)}
        asked = {key: value for key, value in self.params.items() if key not in OWN}
        try:
            executor = submitit.AutoExecutor(
                folder=self.params["submitit_folder"],
                cluster="slurm",
                slurm_max_num_timeout=self.params["max_num_timeout"],
            )
            executor.update_parameters(
                **{key if key in general else f"slurm_{key}": value for key, value in asked.items()}
            )
            return [job.job_id for job in executor.map_array(run, *zip(*given, strict=True))]
        except (RuntimeError, subprocess.CalledProcessError) as error:
            raise ConfigError(f"Slurm does not take the jobs: {error}") from error


def in_queue() -> set[str] | None:
    """The numbers of this user's jobs that wait, run or end; None: Slurm does not answer now."""
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if answer.returncode else set(answer.stdout.split())
