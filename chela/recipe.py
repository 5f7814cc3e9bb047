"""Overrides of a command line as a file that does the same: an experiment of the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from chela.errors import ConfigError
from chela.identity import NOT_IDENTITY

EXPERIMENT = "experiment"


def experiment(overrides: Sequence[str], configs: Path, comment: str) -> str:
    """A file for ``configs/experiment/`` that does what the overrides do.

    Where a run happens and what it shows (data_dir, logger.tags, ...) is left out.

    Args:
        overrides: ``group=choice`` and ``key=value``; of one key given twice the last counts.
        configs: the folder of the configuration, to know its groups.
        comment: a line or more that say where the file is from.

    Raises:
        ConfigError: an override that adds or deletes, which no file of this form can do.
    """
    base: list[Any] = []
    chosen: dict[str, str] = {}
    values = OmegaConf.create({})
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, value = override.key_or_group, override.value()
        if override.is_add() or override.is_delete():
            raise ConfigError(f"{override.input_line}: an experiment cannot add or delete")
        if key == EXPERIMENT:
            base = [str(value)]  # by name alone: as a group it would be this file again
        elif (configs / key).is_dir():
            chosen[f"override /{key}"] = str(value)
        elif key not in NOT_IDENTITY:
            OmegaConf.update(values, key, value)
    defaults = [*base, *({group: choice} for group, choice in chosen.items()), "_self_"]
    lines = [f"# {line}" for line in comment.splitlines()]
    head = OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults}))
    return "\n".join(["# @package _global_", *lines, head, OmegaConf.to_yaml(values)])
