"""Which keys of a configuration decide what a run computes; for those who only read records too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Where a run happens and what it shows do not change what it computes: these keys are left out of
# its identity, so that a run can be moved to another disk or GPU and still be found and resumed.
NOT_IDENTITY = {
    "name",
    "data_dir",
    "output_dir",
    "resume",
    "logger.wandb",
    "logger.project",
    "logger.entity",
    "logger.tags",
    "logger.start_timeout",
    "logger.finish_timeout",
    "task.workers",
    "task.export_tsv",
    "task.tsv_dir",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.step",
    "trainer.deterministic",
    "trainer.data_on_device",
    "trainer.num_workers",
    "trainer.log_every_steps",
    "trainer.plateau_steps",
    "trainer.checkpoint_every_steps",
    "trainer.progress",
}

# These came later and are null as a rule: left out while they are, so that earlier ids stay.
OPTIONAL = {"start_from"}


def decides(key: str, value: Any) -> bool:
    """Whether ``key``, with this value, is a part of a run's id."""
    return key not in NOT_IDENTITY and not (key in OPTIONAL and value is None)


def deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a configuration that decide what is computed, flat: ``{"model.dim": 128, ...}``.

    Args:
        values: a whole configuration, from Hydra or from a record.
    """
    found = {key: value for key, value in flat(values).items() if decides(key, value)}
    # It came later to ListOps; other tasks have always had it.
    if found.get("task.name") == "listops" and found.get("task.stand_in") is None:
        found.pop("task.stand_in", None)
    return found


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
