"""A part of a run that is a class, chosen by its name: a task, or a mixer."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chela.config.checking import checked, keys_of
from chela.errors import ConfigError


@dataclass(frozen=True)
class Component:
    """A class chosen by ``_target_`` in a YAML file, with its own checked configuration."""

    target: Any  # a class
    config: Any  # an instance of ``target.Config``


def component(
    section: Mapping[str, Any], path: str, classes: Mapping[str, type] | None = None
) -> Component:
    """The class that ``section["_target_"]`` names, and its checked ``Config``.

    Args:
        section: a YAML group's keys, ``_target_`` among them.
        path: where it stands in the configuration, for messages.
        classes: those that the name may be of; None: any, which is imported.

    Raises:
        ConfigError: there is no such class, it has no ``Config``, or a key does not fit it.
    """
    values = keys_of(section, path)
    name = values.pop("_target_", None)
    if name is None:
        raise ConfigError(f"{path}._target_ is missing: it names the class, e.g. a.module.Class")
    target = imported(name, path) if classes is None else classes.get(str(name))
    if target is None:
        raise ConfigError(f"{path}._target_={name} is not a class that is known here")
    schema = getattr(target, "Config", None)
    if not isinstance(schema, type) or not dataclasses.is_dataclass(schema):
        raise ConfigError(f"{path}._target_={name} needs a dataclass attribute 'Config'")
    return Component(target, checked(schema, values, path))


def imported(name: str, path: str) -> type:
    """The class that ``name`` says, which is imported; see ``component``."""
    try:
        target = pkgutil.resolve_name(name)
    except ModuleNotFoundError as error:
        top = name.partition(".")[0]
        if error.name != top:  # something that the module imports
            raise ConfigError(f"{path}._target_={name} cannot be imported: {error}") from error
        raise ConfigError(
            f"{path}._target_={name}: there is no module '{top}' on Python's path.\n"
            f"  try: PYTHONPATH=<the folder that holds {top}.py> before the command"
        ) from error
    except Exception as error:  # whatever the module raises
        raise ConfigError(f"{path}._target_={name} cannot be imported: {error}") from error
    if not isinstance(target, type):
        raise ConfigError(f"{path}._target_={name} is not a class")
    return target


def class_name(target: type) -> str:
    """Its name in records, and for ``_target_``."""
    return f"{target.__module__}.{target.__qualname__}"
