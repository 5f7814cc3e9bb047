"""Plain values against a dataclass: every key known, every type and range checked.

The dataclasses beside the code that uses them hold types, ranges and choices. An unknown key, a
missing key or a bad value is a ``ConfigError`` that names what would have been right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar, get_type_hints

import pydantic
import yaml
from pydantic_core import ArgsKwargs

from chela.config.identity import joined
from chela.errors import ConfigError, UnknownKey, suggestion

T = TypeVar("T")


def checked(schema: type[T], values: Mapping[str, Any], path: str) -> T:
    """``schema(**values)`` with every key known, every type and range checked.

    Args:
        schema: a dataclass whose annotations state types, ``Literal`` choices and ranges.
        values: the YAML group's keys.
        path: where the group stands in the configuration, for messages.

    Raises:
        ConfigError: naming every key that is unknown or has a bad value, and the choices.
    """
    values = keys_of(values, path)
    _refuse_unknown_within(schema, values, path)
    result: T = validated(schema, values, path)
    for key, value in values.items():
        if isinstance(value, bool) and not isinstance(getattr(result, key), bool):
            raise ConfigError(f"{joined(path, key)}={str(value).lower()} should be a number")
    return result


def keys_of(values: Any, path: str) -> dict[str, Any]:
    """A section's keys as strings; a value in its place is refused."""
    if isinstance(values, Mapping):
        return {str(key): value for key, value in values.items()}
    group = path.split(".")[0]
    raise ConfigError(
        f"{path}={values!r} stands where the keys of a section should be.\n"
        f"  try: {path}.<key>=value; a file of the configuration chooses from the group by\n"
        f"       defaults: [override /{group}: <choice>]"
    )


def fields_of(schema: Any) -> list[str]:
    """The names of a dataclass's fields."""
    return [field.name for field in dataclasses.fields(schema)]


def refuse_unknown(values: Mapping[str, Any], known: Iterable[str], path: str) -> None:
    """Refuse keys that are not among the known ones.

    Raises:
        UnknownKey: naming the nearest.
    """
    for key in values:
        if key not in known:
            whole = joined(path, key)
            raise UnknownKey(whole, f"unknown key '{whole}'. {suggestion(key, known)}")


def _refuse_unknown_within(schema: Any, values: Mapping[str, Any], path: str) -> None:
    """``refuse_unknown`` for a dataclass and those among its fields."""
    refuse_unknown(values, fields_of(schema), path)
    hints = get_type_hints(schema)
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, Mapping):
            _refuse_unknown_within(hints[key], value, joined(path, key))


def require(values: Mapping[str, Any], names: Iterable[str], path: str) -> None:
    """Refuse to go on without some keys."""
    if without := [_missing(joined(path, name)) for name in names if name not in values]:
        raise ConfigError("\n".join(without))


def validated(kind: Any, value: Any, path: str) -> Any:
    """A value as pydantic takes it for a type; its errors in the words of a command line."""
    try:
        return pydantic.TypeAdapter(kind).validate_python(value)
    except pydantic.ValidationError as error:
        lines = [_explain(detail, path) for detail in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def values_of(
    words: Iterable[str], texts: Collection[str], remedy: Callable[[str], str]
) -> dict[str, Any]:
    """What ``key=value`` words of a command without Hydra say; the last of a key counts.

    Args:
        words: of the command line.
        texts: keys whose values are taken as they are; those of the others are read as YAML.
        remedy: of a word that is no ``key=value``, what to type instead.

    Raises:
        ConfigError: a word is none, or its value cannot be read.
    """
    found = {}
    for word in words:
        key, mark, text = word.partition("=")
        if not mark:
            raise ConfigError(f"{word!r} is no key=value.\n  try: {remedy(word)}")
        found[key] = text if key in texts else _value_of(key, text)
    return found


def _value_of(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        message = f"{key}={text} cannot be read as a value."
        raise ConfigError(f"{message}\n  try: close its brackets and quotes") from error


def _missing(key: str) -> str:
    return f"{key} is missing.\n  try: without ~{key}; in a file of your own, a value for it"


def _explain(detail: Any, path: str) -> str:
    key = joined(path, ".".join(str(part) for part in detail["loc"]))
    if detail["type"] == "missing":
        if isinstance(detail["loc"][-1], int):  # of a list whose places have kinds of their own
            return f"{key.rpartition('.')[0]}={detail['input']} has too few values"
        return _missing(key)
    if detail["type"] == "literal_error":
        return f"{key}={detail['input']} is not one of {detail['ctx']['expected']}"
    if detail["type"] in ("bool_parsing", "bool_type"):
        return f"{key}={detail['input']} is neither true nor false"
    value = detail["input"]
    typed = str(value).lower() if isinstance(value, bool) else str(value)
    remedies = {"string_type": f"'{key}=\"{typed}\"'", "list_type": f"'{key}=[{typed}]'"}
    remedies["tuple_type"] = remedies["list_type"]
    remedy = "" if value is None or isinstance(value, list) else remedies.get(detail["type"], "")
    if not all(isinstance(part, str) for part in detail["loc"]):  # inside of a list
        remedy = ""
    message = (detail["msg"][0].lower() + detail["msg"][1:]).removeprefix("value error, ")
    if isinstance(detail["input"], (Mapping, ArgsKwargs)):  # a section; the message names its keys
        return f"{key}: {message}"
    return f"{key}={value!r}: {message}" + (f"\n  try: {remedy}" if remedy else "")
