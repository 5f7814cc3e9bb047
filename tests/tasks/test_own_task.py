"""The task of docs/tutorials/task.md; a test follows the whole of it (tests/test_tutorials.py)."""

from __future__ import annotations

from omegaconf import OmegaConf

from tests.documented import titled

DOCUMENT = "docs/tutorials/task.md"


def test_the_file_states_the_defaults_of_the_code() -> None:
    values = OmegaConf.to_container(
        OmegaConf.create(titled(DOCUMENT, "my/configs/task/parity.yaml"))
    )
    assert values.pop("_target_") == "parity.Parity"
    names: dict = {}
    exec(titled(DOCUMENT, "my/parity.py"), names)
    config = names["ParityConfig"]
    assert config(**values) == config()
