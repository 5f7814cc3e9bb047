"""What YAML files of ours can compute: ``${choose:${.data},{aan:retrieval,rfc:retrieval-rfc}}``."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf


def register() -> None:
    """Make ``choose`` known to OmegaConf; a second call changes nothing."""
    OmegaConf.register_new_resolver("choose", choose, replace=True)


def choose(key: Any, choices: dict[Any, Any]) -> Any:
    """``choices[key]``, or ``key`` itself where it is none: the check of the key names it then."""
    return choices.get(key, key)
