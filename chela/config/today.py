"""What the configuration of a record is today: classes move, and new keys come."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from chela.config.choices import CONFIGS
from chela.config.component import class_name, imported


def registered(own: Iterable[type] = ()) -> dict[str, type]:
    """The classes of the tasks and mixers that there is a choice for, by their names in records."""
    known = {name: imported(name, "configs") for name in sorted(todays_classes().values())}
    return known | {class_name(each): each for each in (*known.values(), *own)}


def todays_classes() -> dict[tuple[str, str], str]:
    """Where the class of a task or of a model's mixer stands, by group and the file's name."""
    return {
        (group, file.stem): str(section["_target_"])
        for group, place in (("task", None), ("model", "mixer"))
        for file in (CONFIGS / group).glob("*.yaml")
        if "_target_" in (section := _section_of(file, place))
    }


def of_today(values: dict[str, Any]) -> dict[str, Any]:
    """A record's configuration with the classes that the files of its task and model name today.

    And with the keys that a record is older than, where they say nothing of the model and its data.
    """
    known = {
        section: {**keys, **found}
        for section, keys in _keys().items()
        if isinstance(found := values.get(section), dict)
    }
    schedule = known.get("schedule", {})
    if schedule.get("name") == "constant":
        schedule["final_ratio"] = 1.0  # it did nothing, whatever it was
    values = {**values, **known}
    names = todays_classes()
    task, model = dict(values.get("task") or {}), dict(values.get("model") or {})
    if name := names.get(("task", str(task.get("name")))):
        task["_target_"] = name
    if name := names.get(("model", str(model.get("name")))):
        model["mixer"] = {**dict(model.get("mixer") or {}), "_target_": name}
    return {**values, "task": task, "model": model}


def _keys() -> dict[str, dict[str, Any]]:
    """The keys of the sections that say how a run is trained, with their usual values."""
    files = {"trainer": "default", "logger": "wandb", "schedule": "linear"}
    found = {
        group: _section_of(CONFIGS / group / f"{choice}.yaml", None)
        for group, choice in files.items()
    }
    return {**found, "optimizer": _section_of(CONFIGS / "config.yaml", "optimizer")}


def _section_of(file: Path, place: str | None) -> Any:
    content = OmegaConf.to_container(OmegaConf.load(file)) or {}
    assert isinstance(content, dict)
    return content if place is None else content.get(place) or {}
