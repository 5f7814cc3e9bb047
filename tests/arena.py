"""The models of the arena's table; a model of a user's own need not be one of them."""

from __future__ import annotations

import yaml

from tests.conftest import ROOT


def arena_models() -> list[str]:
    """Those of `+sweep=lra_table`: each has recipes and a row of docs/models.md."""
    sweep = yaml.safe_load((ROOT / "configs" / "sweep" / "lra_table.yaml").read_text())
    return sorted(sweep["hydra"]["sweeper"]["params"]["model"].split(","))
