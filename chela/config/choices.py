"""The groups of the configuration: what they offer, and whether what was chosen fits together."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from chela.config.identity import flat, joined
from chela.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SWEEP = "sweep"  # the group that is added: +sweep=lra_table
EXPERIMENT = "experiment"
# Its folders whose files are named <task>-<model>, or <task>:
RECIPES = "lra"  # the configuration applies them by task and model
SMALL = "small"  # of the small table
RECIPE = f"{EXPERIMENT}/{RECIPES}"
SMALL_RECIPE = f"{EXPERIMENT}/{SMALL}@_global_"


@dataclass(frozen=True)
class Chosen:
    """What a command line chose."""

    groups: Mapping[str, str | None]  # the choice of each
    typed: frozenset[str]  # groups and keys that the command line names
    varied: tuple[str, ...]  # those that the sweep's file varies
    folders: tuple[Path, ...]  # of the configuration, one's own first

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
        sources = section.runtime.config_sources
        folders = tuple(Path(each.path) for each in sources if each.schema == "file")
        return cls(dict(section.runtime.choices), frozenset(typed), varied, folders)

    def origin(self, key: str) -> str | None:
        """Who set an unknown key that nobody typed, and what to do; None where that is not known.

        Args:
            key: such as ``model.mixer.qk_dim``, of another model's mixer than the one chosen.
        """
        if any(f"{key}.".startswith(f"{word}.") for word in self.typed - set(self.groups)):
            return None
        section = key.split(".")[0]
        if self.groups.get(section) and section in (EXPERIMENT, "ablation", SWEEP):
            file = self._file(f"{section}/{self.groups[section]}")
            marked = file is not None and file.read_bytes().startswith(codecs.BOM_UTF8)
            remedy = ", saved without a byte-order mark before it" if marked else ""
            return (
                f"{section}={self.groups[section]} sets nothing: the keys of {file} are taken for "
                f"those of a section '{section}'.\n"
                f"  try: # @package _global_ as the first line of that file{remedy}"
            )
        for group in (EXPERIMENT, "ablation", RECIPE):
            choice = self.groups.get(group)
            files = self._with_bases(f"{group}/{choice}")
            file = next((each for each in files if key in _keys(each)), None)
            if choice is None or file is None:
                continue
            setter = f"the recipe {_place(files[0])}" if group == RECIPE else f"{group}={choice}"
            words = [f"{setter} sets {key}"]
            if file != files[0]:
                words.append(f"which it has from {_place(file)}")
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
        if group == EXPERIMENT and self._file(f"{EXPERIMENT}/{small}"):
            return f"{EXPERIMENT}={small} task={task} model={model}, or {leave_out}"
        return leave_out

    def check(self) -> None:
        """Refuse what composes, but is not what it seems to be.

        Raises:
            ConfigError: an experiment of one pair of task and model with another pair; a sweep that
                is not run as one; a choice by another name than its own.
        """
        for group, choice in self.groups.items():
            own = os.path.normpath(choice or "").lstrip("./").removesuffix(".yaml")
            own = own.removeprefix(f"{group}/")
            if choice and choice != own:  # Hydra finds the file, but no recipe is called so
                raise ConfigError(f"there is no {group}={choice}.\n  try: {group}={own}")
        sweep = self.groups.get(SWEEP)
        if sweep and not self.typed.issuperset(self.varied):  # a cell's own command has them all
            raise ConfigError(
                f"+{SWEEP}={sweep} varies {', '.join(self.varied)}, but this is a single run.\n"
                f"  try: python train.py -m +{SWEEP}={sweep}"
            )
        experiment = self.groups.get(EXPERIMENT) or ""
        folder, _, name = experiment.rpartition("/")
        pair = self._pair(name) if folder in (RECIPES, SMALL) else {}
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

    def without_recipe(self) -> str | None:
        """A line that says that nobody has tuned this pair of task and model; None where one has.

        Whoever chose an experiment of another kind knows what it is for.
        """
        small = self.groups.get(SMALL_RECIPE)
        if self.groups.get(EXPERIMENT) and not small:
            return None
        recipe = f"{EXPERIMENT}/{SMALL}/{small}" if small else f"{RECIPE}/{self.groups.get(RECIPE)}"
        if self._file(recipe):
            return None
        return (
            f"there is no recipe for task={self.groups.get('task')} "
            f"model={self.groups.get('model')} (configs/{recipe}.yaml); the defaults are used"
        )

    def _file(self, name: str) -> Path | None:
        """The file of a choice, such as ``experiment/demo``; None where there is none."""
        files = (folder / f"{name}.yaml" for folder in self.folders)
        return next((file for file in files if file.is_file()), None)

    def _with_bases(self, name: str) -> list[Path]:
        """A choice's file and those its defaults build it on, what wins first; empty without one.

        A base stands as ``listops-mega``, beside the file, or as ``/experiment/small: listops``.
        """
        file = self._file(name)
        if file is None:
            return []
        found = [file]
        for entry in reversed(_content(file).get("defaults", [])):
            base = "/".join(map(str, *entry.items())) if isinstance(entry, dict) else str(entry)
            base = base.removeprefix("optional ")
            # with "override " before it an entry chooses, and is no file; nor is _self_
            beside = f"{name.rpartition('/')[0]}/{base}"
            found += self._with_bases(base[1:] if base[0] == "/" else beside)
        return found

    def _pair(self, name: str) -> dict[str, str]:
        """``listops-s4d`` as ``{"task": "listops", "model": "s4d"}``, as far as there are such."""
        task, _, model = name.partition("-")
        pair = {"task": task, "model": model}
        return {group: each for group, each in pair.items() if self._file(f"{group}/{each}")}


def offered() -> dict[str, list[str]]:
    """The choices of every group that train.py takes; recipes are chosen by task and model."""
    found: dict[str, set[str]] = {}
    for folder in (CONFIGS, *own_folders(sys.argv)):
        for file in folder.rglob("*.yaml"):
            group, *choice = file.relative_to(folder).with_suffix("").parts
            # not Hydra's own groups, nor that of scripts/search.py
            if choice and group not in ("hydra", "search") and choice[0] != RECIPES:
                found.setdefault(group, set()).add("/".join(choice))
    return {group: sorted(choices) for group, choices in sorted(found.items())}


def own_folders(words: Sequence[str]) -> list[Path]:
    """The folder of one's own that a command line adds with ``--config-dir``, if it does."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            return [Path(value if equals else following)]
    return []


def groups_help() -> str:
    """A line per group, for ``--help``."""
    return "\n".join(
        f"{'+sweep, with -m' if group == SWEEP else group}: {', '.join(choices)}"
        for group, choices in offered().items()
    )


def _keys(file: Path) -> set[str]:
    """The keys that a file sets, where its ``@package`` puts them."""
    head = re.match(r"# @package (\S+)", file.read_text())
    package = head[1] if head else file.parent.name
    values = flat(_content(file))
    return {joined("" if package == "_global_" else package, key) for key in values}


def _place(file: Path) -> str:
    own = not file.is_relative_to(CONFIGS)
    return str(file) if own else f"configs/{file.relative_to(CONFIGS).as_posix()}"


def _overridden(file: Path) -> dict[str, str]:
    """The groups that a file chooses from: ``override /model: chela`` is ``{"model": "chela"}``."""
    entries = [each for each in _content(file).get("defaults", []) if isinstance(each, dict)]
    pairs = [pair for entry in entries for pair in entry.items()]
    return {key.removeprefix("override /"): str(choice) for key, choice in pairs}


def _content(file: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(file))
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}
