"""What a run's id is made of, and the keys of a configuration as one flat mapping.

A field of a configuration's dataclass counts, unless its declaration says otherwise:

    workers: int | None = field(default=None, metadata={"identity": False})
    tie_dropout: bool = field(default=False, metadata={"neutral": False})

``identity=False``: where a run happens and what it shows. It can be moved to another disk or GPU,
and is still found and resumed. ``neutral``: the value at which the feature does nothing (not the
default, which may change). While the field has it, it is left out, so that a new key changes no
earlier run's id.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any


def counts(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a field with this value is a part of a run's id."""
    says = field.metadata
    return says.get("identity", True) and not ("neutral" in says and says["neutral"] == value)


def digest(content: Mapping[str, Any]) -> str:
    """Eight hex digits that name the keys and values of ``content``, whatever their order."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested sections as one: ``{"model": {"dim": 128}} -> {"model.dim": 128}``.

    Args:
        values: a configuration or a section of one.
        path: where the section stands in the configuration.
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping)
        result |= flat(value, joined(path, key)) if inner else {joined(path, key): value}
    return result


def joined(path: str, key: str) -> str:
    """``key`` inside the section ``path``, either of which may be empty."""
    return f"{path}.{key}" if path and key else path or key
