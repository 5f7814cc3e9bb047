"""What YAML files of ours can compute.

``${choose:${.data},{aan:retrieval,rfc:retrieval-rfc}}`` follows another key, ``${groups:}`` is the
list of groups in the help.
"""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from chela.config.choices import groups_help


def register() -> None:
    """Make them known to OmegaConf; a second call changes nothing."""
    OmegaConf.register_new_resolver("choose", choose, replace=True)
    OmegaConf.register_new_resolver("groups", groups_help, replace=True)


def choose(key: Any, choices: dict[Any, Any]) -> Any:
    """``choices[key]``, or ``key`` itself where it is none: the check of the key names it then."""
    return choices.get(key, key)
