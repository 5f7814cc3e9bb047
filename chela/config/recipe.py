"""Recipes: how a run departs from that of its task and model, and a new one as a file."""

from __future__ import annotations

from collections.abc import Container, Sequence
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from chela.config.choices import CONFIGS, EXPERIMENT
from chela.config.identity import flat
from chela.config.schema import RunConfig, as_dict, computation, parse
from chela.errors import ConfigError


def departures(config: RunConfig) -> dict[str, Any] | None:
    """What the recipe of the run's task and model has otherwise: ``{"trainer.max_epochs": 25.0}``.

    None where there is no such task or model to choose.
    """
    task = config.task.config.name
    # a stand-in that runs under a name of its own has its task's before a hyphen
    tasks = dict.fromkeys((task, task.partition("-")[0]))
    recipes = (_recipe(each, config.model.name) for each in tasks)
    recipe = next((each for each in recipes if each is not None), None)
    if recipe is None or recipe.task.target is not config.task.target:
        return None
    ours, theirs, whole = computation(config), computation(recipe), flat(as_dict(recipe))
    keys = [key for key in ours | theirs if ours.get(key, recipe) != theirs.get(key, recipe)]
    return {key: whole.get(key) for key in keys}


def experiment(overrides: Sequence[str], apart: Container[str], comment: str) -> str:
    """A file for ``configs/experiment/`` that does what the overrides do.

    Args:
        overrides: ``group=choice`` and ``key=value``; of one key given twice the last counts.
        apart: keys to leave out.
        comment: a line or more that say where the file is from.

    Raises:
        ConfigError: an override that adds or deletes, which no file of this form can do.
    """
    base: list[Any] = []
    chosen: dict[str, str] = {}
    values = OmegaConf.create({})
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, value = override.key_or_group, override.value()
        if override.is_add() or override.is_delete():
            raise ConfigError(f"{override.input_line}: an experiment cannot add or delete")
        if key == EXPERIMENT:
            base = [str(value)]  # by name alone: as a group it would be this file again
        elif (CONFIGS / key).is_dir():
            chosen[f"override /{key}"] = str(value)
        elif key not in apart:
            OmegaConf.update(values, key, value)
    defaults = [*base, *({group: choice} for group, choice in chosen.items()), "_self_"]
    lines = [f"# {line}" for line in comment.splitlines()]
    head = OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults}))
    return "\n".join(["# @package _global_", *lines, head, OmegaConf.to_yaml(values)])


def _recipe(task: str, model: str) -> RunConfig | None:
    if not GlobalHydra.instance().is_initialized():
        return _shipped(task, model)
    # inside of a command by its own configuration, which may have more than ours to choose from
    try:
        words = [f"task={task}", f"model={model}"]
        return parse(compose("config", words, return_hydra_config=True))
    except (ConfigError, HydraException):
        return None


@cache
def _shipped(task: str, model: str) -> RunConfig | None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return _recipe(task, model)
