"""The groups of the configuration: what they offer, and whether what was chosen fits together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from chela.errors import ConfigError
from chela.identity import flat, joined

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SWEEP = "sweep"  # the group that is added: +sweep=lra_table
EXPERIMENT = "experiment"
# Its folders whose files are named <task>-<model>, or <task>:
RECIPES = "lra"  # the configuration applies them by task and model
SMALL = "small"  # of the small table
RECIPE = f"{EXPERIMENT}/{RECIPES}"


@dataclass(frozen=True)
class Chosen:
    """What a command line chose."""

    groups: Mapping[str, str | None]  # the choice of each
    typed: frozenset[str]  # groups and keys that the command line names
    varied: tuple[str, ...]  # those that the sweep's file varies

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
        typed = {word.split("=")[0].lstrip("+~") for word in section.overrides.task}
        varied = tuple(section.sweeper.get("params") or ())
        return cls(dict(section.runtime.choices), frozenset(typed), varied)

    def origin(self, key: str) -> str | None:
        """Who set an unknown key that nobody typed, and what to do; None where that is not known.

        Args:
            key: such as ``model.mixer.qk_dim``, of another model's mixer than the one chosen.
        """
        if any(f"{key}.".startswith(f"{word}.") for word in self.typed - set(self.groups)):
            return None
        for group in (EXPERIMENT, "ablation", RECIPE):
            choice = self.groups.get(group)
            files = _with_bases(CONFIGS / group / f"{choice}.yaml")
            file = next((each for each in files if key in _keys(each)), None)
            if choice is None or file is None:
                continue
            setter = f"the recipe {_place(files[0])}" if group == RECIPE else f"{group}={choice}"
            words = [f"{setter} sets {key}"]
            if file != files[0]:
                words.append(f"which it has from {_place(file)}")
            section = key.split(".")[0]
            made_for = [
                choices[section] for choices in map(_overridden, files) if section in choices
            ]
            if made_for:
                words[0] += f" for {section}={made_for[0]}"
            words.append(f"but {section}={self.groups.get(section)} has no such key")
            return f"{', '.join(words)}.\n  try: {self._instead_of(group, key)}"
        return None

    def _instead_of(self, group: str, key: str) -> str:
        """What to do about the choice of a group that sets a key that does not fit."""
        task, model = self.groups.get("task"), self.groups.get("model")
        if group == RECIPE:  # applied by itself: nothing that could be left out
            return f"~{key} (leaves the key out), or another recipe for task={task} model={model}"
        leave_out = f"leave out {group}={self.groups.get(group)}"
        small = f"{SMALL}/{task}-{model}"
        if group == EXPERIMENT and (CONFIGS / EXPERIMENT / f"{small}.yaml").is_file():
            return f"{EXPERIMENT}={small} task={task} model={model}, or {leave_out}"
        return leave_out

    def check(self) -> None:
        """Refuse what composes, but is not what it seems to be.

        Raises:
            ConfigError: an experiment of one pair of task and model with another pair; a sweep that
                is not run as one.
        """
        sweep = self.groups.get(SWEEP)
        if sweep and not self.typed.issuperset(self.varied):  # a cell's own command has them all
            raise ConfigError(
                f"+{SWEEP}={sweep} varies {', '.join(self.varied)}, but this is a single run.\n"
                f"  try: python train.py -m +{SWEEP}={sweep}"
            )
        experiment = self.groups.get(EXPERIMENT) or ""
        folder, _, name = experiment.rpartition("/")
        pair = _pair(name) if folder in (RECIPES, SMALL) else {}
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
        f"{'+sweep, with -m' if group == SWEEP else group}: {', '.join(choices)}"
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


def _keys(file: Path) -> set[str]:
    """The keys that a file sets, where its ``@package`` puts them."""
    head = re.match(r"# @package (\S+)", file.read_text())
    package = head[1] if head else file.parent.name
    values = flat(_content(file))
    return {joined("" if package == "_global_" else package, key) for key in values}


def _with_bases(file: Path) -> list[Path]:
    """A file and those that its defaults build it on, what wins first; empty where there is none.

    A base stands as ``listops-mega``, beside the file, or as ``/experiment/small: listops``.
    """
    if not file.is_file():
        return []
    found = [file]
    for entry in reversed(_content(file).get("defaults", [])):
        path = "/".join(map(str, *entry.items())) if isinstance(entry, dict) else str(entry)
        path = f"{path.removeprefix('optional ')}.yaml"
        # with "override " before it an entry chooses, and is no file; nor is _self_
        found += _with_bases(CONFIGS / path[1:] if path[0] == "/" else file.parent / path)
    return found


def _place(file: Path) -> str:
    return f"configs/{file.relative_to(CONFIGS).as_posix()}"


def _overridden(file: Path) -> dict[str, str]:
    """The groups that a file chooses from: ``override /model: chela`` is ``{"model": "chela"}``."""
    entries = [each for each in _content(file).get("defaults", []) if isinstance(each, dict)]
    pairs = [pair for entry in entries for pair in entry.items()]
    return {key.removeprefix("override /"): str(choice) for key, choice in pairs}


def _content(file: Path) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(file)))
