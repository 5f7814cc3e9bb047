"""What the YAML files can compute."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from chela.config import resolvers


@pytest.mark.parametrize(("key", "value"), [("a", "one"), ("b", "two"), ("c", "c")])
def test_choose_follows_another_key(key: str, value: str) -> None:
    resolvers.register()
    config = OmegaConf.create({"key": key, "value": "${choose:${.key},{a:one,b:two}}"})
    assert config.value == value
    config.key = "b"  # as an override on the command line, which comes later
    assert config.value == "two"
