"""A user of W&B whose server is on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.wandb_server import KEY, WandbServer


@pytest.fixture
def server() -> Iterator[WandbServer]:
    server = WandbServer()
    yield server
    if not server.died.is_set():
        server.die()
    assert server.unknown == []


@pytest.fixture
def environment(server: WandbServer, tmp_path: Path) -> dict[str, str]:
    """Of a user who has a key, and nothing else of W&B on this machine."""
    left = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return left | {
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": KEY,
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
        "NETRC": str(tmp_path / "netrc"),
        # seconds, whole ones; at the usual fifteen all rows would come at the end
        "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",
    }


@pytest.fixture
def here(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same in this process."""
    import wandb  # here: the other tests of training need not wait for it

    wandb.teardown()
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name in environment.keys() - os.environ.keys():
            patch.setenv(name, environment[name])
        yield
        wandb.teardown()
