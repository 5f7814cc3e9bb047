"""What the data tests share: no network, and ListOps so small that it takes no time."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before `datasets` is imported

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.listops.task import ListOps, ListOpsConfig

TINY: dict[str, Any] = {
    "source": "generated",
    "min_length": 5,
    "max_length": 40,
    "max_depth": 4,
    "num_train": 70,
    "num_val": 11,
    "num_test": 13,
    "workers": 1,
}


@pytest.fixture
def listops(tmp_path: Path) -> Callable[..., ListOps]:
    """``listops(num_train=9)``: a tiny task in a folder of its own; not yet prepared."""

    def build(**changes: Any) -> ListOps:
        data_dir = changes.pop("data_dir", tmp_path / "data")
        return ListOps(ListOpsConfig(**{**TINY, **changes}), data_dir)

    return build
