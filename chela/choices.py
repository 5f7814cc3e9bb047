"""The groups of the configuration: what they offer, and whether what was chosen fits together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from chela.errors import ConfigError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
EXPERIMENT = "experiment"
RECIPES = "lra"  # in that group; the configuration applies them by task and model
PAIRS = (RECIPES, "small")  # folders of the group whose files are named <task>-<model>, or <task>


@dataclass(frozen=True)
class Chosen:
    """What a command line chose."""

    groups: Mapping[str, str | None]  # the choice of each

    @classmethod
    def of(cls, composed: DictConfig) -> Chosen | None:
        """What led to a configuration; None where neither it nor Hydra knows.

        Args:
            composed: with Hydra's own section, or that of the job that runs in this process.
        """
        if "hydra" in composed:
            section = composed.hydra
        elif HydraConfig.initialized():
            section = HydraConfig.get()
        else:
            return None
        return cls(dict(section.runtime.choices))

    def check(self) -> None:
        """Refuse what composes, but is not what it seems to be.

        Raises:
            ConfigError: an experiment of one pair of task and model with another pair.
        """
        experiment = self.groups.get(EXPERIMENT) or ""
        folder, _, name = experiment.rpartition("/")
        pair = _pair(name) if folder in PAIRS else {}
        if all(self.groups.get(group) == choice for group, choice in pair.items()):
            return
        words = " ".join(f"{group}={choice}" for group, choice in pair.items())
        if folder == RECIPES:
            raise ConfigError(
                f"experiment={experiment} is the recipe of {words}, which applies it by itself.\n"
                f"  try: {words}, without the experiment"
            )
        raise ConfigError(
            f"experiment={experiment} is for {words}.\n  try: experiment={experiment} {words}"
        )


def offered() -> dict[str, list[str]]:
    """The choices of every group that train.py takes; recipes are chosen by task and model."""
    found = {}
    for group in sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir()):
        if group not in ("hydra", "search"):  # Hydra's own, and that of scripts/search.py
            files = (CONFIGS / group).rglob("*.yaml")
            names = [file.relative_to(CONFIGS / group).with_suffix("") for file in files]
            found[group] = sorted(each.as_posix() for each in names if each.parts[0] != RECIPES)
    return found


def groups_help() -> str:
    """A line per group, for ``--help``."""
    return "\n".join(
        f"{'+sweep, with -m' if group == 'sweep' else group}: {', '.join(choices)}"
        for group, choices in offered().items()
    )


def _pair(name: str) -> dict[str, str]:
    """``listops-s4d`` as ``{"task": "listops", "model": "s4d"}``, as far as there are such."""
    task, _, model = name.partition("-")
    return {
        group: choice
        for group, choice in {"task": task, "model": model}.items()
        if (CONFIGS / group / f"{choice}.yaml").is_file()
    }
