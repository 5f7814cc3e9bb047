"""The space of a search: a file of ``configs/search/``, and what a trial draws from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from optuna.trial import FixedTrial, Trial
from pydantic import NonNegativeInt, PositiveInt

from chela.config.checking import checked
from chela.errors import ConfigError, suggestion


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; whole ones if both are."""

    low: int | float
    high: int | float
    log: bool = False  # draw the logarithm evenly
    step: int | float | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log: true needs low > 0, and no step")

    def draw(self, trial: Trial | FixedTrial, key: str) -> Any:
        """A number; of a real range three digits, so that it can be read and typed."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(key, self.low, self.high, log=self.log, step=step)
        value = trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)
        return float(f"{value:.3g}")


@dataclass(frozen=True)
class Choices:
    """One of several values."""

    choices: list[bool | int | float | str | None]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("choices is empty")

    def draw(self, trial: Trial | FixedTrial, key: str) -> Any:
        """One of them."""
        return trial.suggest_categorical(key, self.choices)


@dataclass(frozen=True)
class SearchConfig:
    """A file of ``configs/search/``."""

    space: dict[str, dict[str, Any]]  # by key of the configuration: a Range or Choices
    startup_trials: PositiveInt  # drawn at random, and never pruned
    warmup_validations: NonNegativeInt  # of each trial, before it may be pruned
    seed: NonNegativeInt  # of the draws

    def dimensions(self) -> dict[str, Range | Choices]:
        """The space, checked.

        Raises:
            ConfigError: a key's entry is neither a range nor choices.
        """
        return {key: _dimension(key, entry) for key, entry in self.space.items()}


def read_search(file: Path) -> SearchConfig:
    """A file of ``configs/search/``, checked.

    Raises:
        ConfigError: it is not there, cannot be read, or has an unknown key or a bad value.
    """
    if not file.is_file():
        choices = sorted(each.stem for each in file.parent.glob("*.yaml"))
        raise ConfigError(f"there is no {file}. {suggestion(file.stem, choices)}")
    try:
        values: Any = OmegaConf.to_container(OmegaConf.load(file))
    except Exception as error:  # YAML's own errors and OmegaConf's
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} has no keys")
    config = checked(SearchConfig, values, "search")
    config.dimensions()
    return config


def drawn(dimensions: Mapping[str, Range | Choices], trial: Trial | FixedTrial) -> list[str]:
    """What a trial has of each key, as on train.py's command line."""
    return [f"{key}={_value(each.draw(trial, key))}" for key, each in dimensions.items()]


def _dimension(key: str, entry: Mapping[str, Any]) -> Range | Choices:
    path = f"search.space.{key}"
    return checked(Choices, entry, path) if "choices" in entry else checked(Range, entry, path)


def _value(value: Any) -> str:
    """As Hydra reads it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
