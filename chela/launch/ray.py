"""Cells of a sweep as tasks of Ray: on this machine, or on all of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_ray_launcher import ray_launcher
from omegaconf import open_dict

from chela.launch.turns import FOLDER, PLUGIN, Turns
from tasks.errors import first_line
from tasks.screen import Screen

# Hydra would take that package's configuration of this name for the schema of ours
ConfigStore.instance().repo["hydra"]["launcher"].pop("ray.yaml", None)


class RayLauncher(ray_launcher.RayLauncher):
    """Hydra's launcher ``ray``: the parameters are those of Hydra's launcher by Ray.

    That one raises where Ray gives a task up, and leaves the others.
    """

    __module__ = PLUGIN

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Give Ray the cells, and return what became of them."""
        import ray  # here, for it takes a while
        from hydra_plugins.hydra_ray_launcher._launcher_util import launch_job_on_ray, start_ray

        assert self.config is not None and self.hydra_context is not None
        turns = Turns(Path(os.environ[FOLDER]), job_overrides, initial_job_idx)
        start_ray(self.ray_cfg.init)
        tasks = []
        for cell in turns.cells:
            composed = self.hydra_context.config_loader.load_sweep_config(
                self.config, cell.overrides
            )
            with open_dict(composed):
                composed.hydra.job.id = str(cell.number)
                composed.hydra.job.num = cell.number
            tasks.append(
                launch_job_on_ray(
                    self.hydra_context,
                    self.ray_cfg.remote,
                    composed,
                    self.task_function,
                    Singleton.get_state(),
                )
            )
        for cell, task in zip(turns.cells, tasks, strict=True):
            why = "left no word of its end"
            try:
                ray.get(task)
            except ray.exceptions.RayError as error:
                why = f"Ray gave it up: {first_line(error)}"
            Screen().say(f"{cell.label}: {turns.end(cell, why)}")
        return turns.returned()
