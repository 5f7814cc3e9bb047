"""What would make a run useless, told before its first step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from torch import nn

from chela.config.schema import RunConfig
from chela.errors import RunError
from chela.training.build import build_fitting
from chela.training.engine import Engine
from chela.training.memory import estimate
from tasks.base import Task
from tasks.errors import DataError


def check_beforehand(task: Task, config: RunConfig, engine: Engine) -> None:
    """Refuse what no data would make fit, before they are fetched and prepared.

    If they are there, ``build_module`` refuses it as soon.

    Args:
        task: not set up.
        config: of the run.
        engine: that would compute it.

    Raises:
        ConfigError: see ``build_fitting``.
    """
    if task.folder.exists():
        return
    with suppress(DataError):  # of a task that says nothing without its data
        build_fitting(config, task.outline, engine)


def check_data(task: Task, config: RunConfig, before: Mapping[str, Any] | None) -> None:
    """Refuse data that the run cannot be trained on.

    Args:
        task: set up.
        config: of the run.
        before: what its checkpoint says of it; None: it begins.

    Raises:
        RunError: they are not those that it began with, or too few for its devices.
        DataError: no model of the task can go on from its prompt.
    """
    if before is not None and before["fingerprint"] != task.meta.fingerprint:
        raise RunError(
            f"the prepared data of {task.name} are not those this run began with "
            f"({task.meta.fingerprint[:12]} now, {before['fingerprint'][:12]} then).\n"
            "  try: bring those data back, or resume=false"
        )
    _check_prompt(task, config)
    replicas = config.trainer.replicas
    for name in (task.selecting, "test"):
        if (samples := len(task.samples(name))) < replicas:
            raise RunError(
                f"{replicas} devices share the samples of {name}, which are {samples}: each "
                "needs one at least.\n  try: fewer devices"
            )


def _check_prompt(task: Task, config: RunConfig) -> None:
    """Refuse what the run's model cannot go on from now, not when all else is done.

    Raises:
        DataError: see ``Task.prompt_of``.
    """
    prompt = getattr(config.task.config, "prompt", None)
    if prompt is not None:
        task.prompt_of(prompt)


def check_finished(task: Task, config: RunConfig, finished: Mapping[str, Any]) -> None:
    """Refuse to show a finished run where data or prompt are not such as it could use now.

    Where official files are is no part of a run's identity, and ``source=auto`` may find others.

    Args:
        task: not set up.
        config: of the run.
        finished: its record.

    Raises:
        RunError: the data are others.
        DataError: see ``_check_prompt``.
    """
    origin = task.origin()
    now = {"source": origin.source, "version": origin.version, "parameters": origin.parameters}
    then = {name: finished["data"].get(name) for name in now}
    if json.loads(json.dumps(now)) != then:
        raise RunError(
            f"{config.run_id} is finished, but with other data of {origin.task}: "
            f"{then['source']}, version {then['version']} then, {origin.source}, version "
            f"{origin.version} now, or other parameters or files.\n"
            "  try: resume=false (run it anew; the finished run is moved aside), or another "
            "output_dir, or bring those data back"
        )
    task.expect(finished["data"])
    _check_prompt(task, config)


def check_memory(
    model: nn.Module,
    task: Task,
    config: RunConfig,
    engine: Engine,
    say: Callable[[str], None],
) -> None:
    """Say it before the memory is full; without a GPU the system would kill the run.

    Raises:
        RunError: on a CPU.
    """
    found = estimate(model.to(engine.device), task, config, engine)
    if found.fits:
        return
    if engine.device.type == "cpu":
        raise RunError(f"the memory would not suffice: {found}")
    # compiled it may need less, and PyTorch's own error does no harm
    say(f"note: the GPU's memory may not suffice, uncompiled: {found}")
