"""The page of configuration keys, made of ``configs/`` and the dataclasses that check them."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from annotated_types import Ge, Gt, Le, Lt

from chela.config.schema import (
    LoggerConfig,
    OptimizerConfig,
    RunSettings,
    ScheduleConfig,
    TrainerConfig,
)
from chela.config.today import registered, todays_classes
from chela.model import BackboneConfig

CONFIGS = Path(__file__).parent.parent / "configs"
HEAD = "| key | value | may be | |\n|---|---|---|---|\n"
LARGE = 2**32  # bounds that no reader meets
SIGNS = {Gt: ">", Ge: "≥", Lt: "<", Le: "≤"}
CHOICES = {  # groups whose files set keys of the others, and what they are for
    "experiment": "Whole runs: `experiment=<choice>`. `experiment/lra/` has recipes.",
    "ablation": "A part of `model=chela` that is left out or exchanged: `ablation=<choice>`.",
    "sweep": "Many runs from one command: `chela train -m +sweep=<choice>`.",
    "search": "Spaces of a search: `chela search search=<choice>`.",
}


def page() -> str:
    """The whole page, in Markdown."""
    classes = {key: registered()[name] for key, name in todays_classes().items()}
    sections = [
        "# Configuration keys",
        "Every key with the value that it has where neither a recipe nor the command line says "
        "otherwise. Set any of them by `key=value`. What is marked with ° does not change what a "
        "run computes, and so is no part of its id. This page is made of the files in `configs/` "
        "when the site is built.",
        "## The run",
        _table("config.yaml", RunSettings),
        "## optimizer",
        "`optimizer=adamw`, `adam` or `muon`.",
        _table("config.yaml", OptimizerConfig, "optimizer"),
        "## schedule",
        "`schedule=linear`, `cosine` or `constant`.",
        _table("schedule/linear.yaml", ScheduleConfig, under="schedule"),
        "## trainer",
        _table("trainer/default.yaml", TrainerConfig, under="trainer"),
        "## logger",
        "`logger=wandb`; `logger=csv` does without Weights & Biases.",
        _table("logger/wandb.yaml", LoggerConfig, under="logger"),
        "## model",
        "`model=<choice>`. What all models have:",
        _table("model/_base/backbone.yaml", BackboneConfig, under="model"),
    ]
    for group, place in (("model", "mixer"), ("task", None)):
        if group == "task":
            sections.append("## task\n\n`task=<choice>`.")
        for file in sorted((CONFIGS / group).glob("*.yaml")):
            base = next(iter(yaml.safe_load(file.read_text()).get("defaults", [])), None)
            schema = classes.get((group, file.stem)) or classes[group, base]
            sections += [f"### {group}={file.stem}", _said(file)]
            sections.append(_table(f"{group}/{file.name}", schema.Config, place, under=group))
    for group, what in CHOICES.items():
        files = sorted((CONFIGS / group).glob("*.yaml"))
        rows = [f"| `{file.stem}` | {_cell(_said(file))} |" for file in files]
        sections += [f"## {group}", what, "| choice | |\n|---|---|\n" + "\n".join(rows)]
    return "\n\n".join(sections) + "\n"


def _table(file: str, schema: type, place: str | None = None, under: str | None = None) -> str:
    """The keys of a file that are fields of a dataclass.

    Args:
        file: below ``configs/``.
        schema: what checks them.
        place: the section of the file that they are in; None: its top.
        under: the group that the file is of; None: the file is the configuration itself.
    """
    prefix = f"{place}." if place else ""
    before = f"{under}." if under else ""
    rows = [
        f"| `{before}{key}`{'' if counts else ' °'} | `{value}` | {may} | {_cell(why)} |"
        for key, value, why in _entries(CONFIGS / file)
        if key.startswith(prefix)
        for may, counts in [_field(schema, key.removeprefix(prefix).split("."))]
        if may is not None and (under, key) != ("task", "name")
    ]
    return HEAD + "\n".join(rows)


def _field(schema: Any, parts: list[str]) -> tuple[str | None, bool]:
    """What a key may be, and whether it counts for a run's id; None: it is no field."""
    hint = get_type_hints(schema, include_extras=True).get(parts[0])
    if hint is None:
        return None, True
    if len(parts) > 1:
        return _field(hint, parts[1:])
    (field,) = (each for each in dataclasses.fields(schema) if each.name == parts[0])
    return _kind(hint), field.metadata.get("identity", True)


def _kind(hint: Any) -> str:
    """A type as a reader of a table wants it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [
            (SIGNS[type(each)], dataclasses.astuple(each))
            for each in inner[1:]
            if type(each) in SIGNS
        ]
        bounds = [f"{sign} {value}" for sign, limit in limits for value in limit if value < LARGE]
        return " ".join([_kind(inner[0]), ", ".join(bounds)]).strip()
    if origin in (Union, types.UnionType):
        return ", ".join("null" if each is type(None) else _kind(each) for each in inner)
    if origin is Literal:
        return ", ".join(
            f"`{str(each).lower() if isinstance(each, bool) else each}`" for each in inner
        )
    if origin in (list, tuple):
        return f"list of {_kind(inner[0])}"
    return {int: "integer", float: "number", str: "text", bool: "`true`, `false`"}.get(hint, "text")


def _entries(file: Path) -> Iterator[tuple[str, str, str]]:
    """Each key of a YAML file with its value as it stands there, and the comment beside it."""
    lines = file.read_text().splitlines()

    def walk(node: Any, before: str) -> Iterator[tuple[str, str, str]]:
        for key, value in node.value:
            name = f"{before}{key.value}"
            if isinstance(value, yaml.MappingNode) and not value.flow_style:
                yield from walk(value, f"{name}.")
                continue
            line = lines[key.start_mark.line]
            _, _, why = line.partition(" # ")
            yield name, line[value.start_mark.column : value.end_mark.column], why

    root = yaml.compose(file.read_text())
    return walk(root, "") if isinstance(root, yaml.MappingNode) else iter(())


def _said(file: Path) -> str:
    """What a YAML file says of itself above its first key, without the lines of examples."""
    said = []
    for line in file.read_text().splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("# ") or line.startswith("#   "):
            break
        said.append(line[2:])
    return " ".join(said)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
