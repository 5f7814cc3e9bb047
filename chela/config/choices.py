"""The groups of the configuration: what they offer, and whether what was chosen fits together."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from chela.errors import ConfigError, UnknownKey

_PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = _PACKAGE / "configs"  # in a wheel
if not CONFIGS.is_dir():  # a checkout has them beside the package
    CONFIGS = _PACKAGE.parent / "configs"
MODELS = sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml"))
OWN = ("--config-dir", "-cd")  # the flag before one's own folder
SWEEP = "sweep"  # the group that is added: +sweep=lra_table
EXPERIMENT = "experiment"
# Its folders whose files are named <task>-<model>, or <task>:
RECIPES = "lra"  # the configuration applies them by task and model
SMALL = "small"  # of the small table
RECIPE = f"{EXPERIMENT}/{RECIPES}"
SMALL_RECIPE = f"{EXPERIMENT}/{SMALL}@_global_"
ADDED = (EXPERIMENT, "ablation")  # groups that nothing is chosen of, unless it is typed


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

    def explain(self, error: UnknownKey) -> str:
        """What to do about an unknown key; where nobody typed it, also which files it may be of."""
        pairs = ((f"{error.key}.", f"{word}.") for word in self.typed - set(self.groups))
        if any(key.startswith(word) or word.startswith(key) for key, word in pairs):
            return str(error)
        section = error.key.split(".")[0]
        if self.groups.get(section) and section in (*ADDED, SWEEP):
            file = self._file(f"{section}/{self.groups[section]}")
            marked = file is not None and file.read_bytes().startswith(codecs.BOM_UTF8)
            remedy = ", saved without a byte-order mark before it" if marked else ""
            return (
                f"{section}={self.groups[section]} sets nothing: the keys of {file} are taken for "
                f"those of a section '{section}'.\n"
                f"  try: # @package _global_ as the first line of that file{remedy}"
            )
        added = [group for group in (*ADDED, SWEEP, RECIPE, section) if self._content(group)]
        setting = [group for group in added if self._sets(group, error.key)] or added
        names = [
            f"the recipe {group}/{self.groups[group]}.yaml"
            if group == RECIPE
            else f"{'+' * (group == SWEEP)}{group}={self.groups[group]}"
            for group in setting
        ]
        remedy = f"leave out {names[0]}" if setting[0] in (*ADDED, SWEEP) else f"~{error.key}"
        for entry in self._content(setting[0]).get("defaults", []):
            own = entry.get(f"override /{section}") if isinstance(entry, dict) else None
            if section in self.typed and own not in (None, self.groups.get(section)):
                remedy += f", or {section}={own}, of which it is"
        return (
            f"{error}\n  It was not typed; it stands in a file of {' or '.join(names)}.\n"
            f"  try: {remedy}"
        )

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
                f"  try: chela train -m +{SWEEP}={sweep}"
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

    def _sets(self, group: str, key: str) -> bool:
        """Whether the file that is chosen of a group has a key, itself and not by its defaults."""
        content: Any = self._content(group)
        section, *parts = key.split(".")
        for part in parts if group == section else (section, *parts):
            if not isinstance(content, dict) or part not in content:
                return False
            content = content[part]
        return True

    def _content(self, group: str) -> dict[str, Any]:
        """What the file that is chosen of a group says itself; empty where there is none."""
        file = self._file(f"{group}/{self.groups.get(group)}")
        return (None if file is None else yaml.safe_load(file.read_text("utf-8"))) or {}

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
            # not Hydra's own groups, nor that of `chela search`, nor what others are built on
            hidden = group in ("hydra", "search") or choice[:1] in ([RECIPES], ["_base"])
            if choice and not hidden:
                found.setdefault(group, set()).add("/".join(choice))
    return {group: sorted(choices) for group, choices in sorted(found.items())}


def own_folders(words: Sequence[str]) -> list[Path]:
    """The folder of one's own that a command line adds with ``--config-dir``, if it does."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        flag, equals, value = word.partition("=")
        if flag in OWN:
            return [Path(value if equals else following)]
    return []


def without_own(words: Sequence[str]) -> list[str]:
    """The words of a command line but for ``--config-dir`` and its folder."""
    pairs = zip(words, ["", *words], strict=False)  # each word and the one before it
    return [word for word, last in pairs if word.partition("=")[0] not in OWN and last not in OWN]


@contextmanager
def hydra_with(folders: Sequence[Path]) -> Iterator[None]:
    """Hydra's ``compose`` reads the shipped configuration, and before it one's own ``folders``."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        path = create_config_search_path(str(CONFIGS))
        for folder in folders:
            own = f"file://{folder.absolute()}"
            path.prepend("command-line", own, SearchPathQuery(provider="main"))
        GlobalHydra.instance().clear()
        Hydra.create_main_hydra2("app", path)
        yield


def groups_help() -> str:
    """A line per group, for ``--help``."""
    return "\n".join(
        f"{'+sweep, with -m' if group == SWEEP else group}: {', '.join(choices)}"
        for group, choices in offered().items()
    )
