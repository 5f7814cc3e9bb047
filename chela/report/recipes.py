"""The recipe that the code ships for a task and a model: what the names of rows are told from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from chela.errors import ConfigError


def shipped(choices: Mapping[str, Any]) -> Mapping[str, Any]:
    """The choices of ``python train.py task=... model=...``, for the task and model of a run.

    Args:
        choices: of the run, flat, with ``task.name`` and ``model.name``.

    Returns:
        Flat, as ``collect.Run.choices``; empty where there is no such task or model (any more).
    """
    names = choices.get("task.name"), choices.get("model.name")
    return _composed(*map(str, names)) if None not in names else {}


@cache
def _composed(task: str, model: str) -> Mapping[str, Any]:
    # only where they are asked for: these bring torch
    from hydra.errors import HydraException

    from chela.choices import CONFIGS
    from chela.config import compose_run, computation

    try:
        return computation(compose_run(CONFIGS, [f"task={task}", f"model={model}"]))
    except (ConfigError, HydraException):
        return {}
