"""The run in Weights & Biases: through Lightning's logger, offline unless there is a key."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlparse

from lightning.pytorch.loggers import WandbLogger

from chela.training.settings import LoggerConfig

Mode = Literal["online", "offline", "disabled"]


def wandb_mode(config: LoggerConfig) -> Mode:
    """``online``, ``offline`` or ``disabled``: what ``auto`` means on this machine.

    The environment's ``WANDB_MODE`` decides over ``auto``; without it, a key decides (from
    ``WANDB_API_KEY`` or from ``wandb login``).
    """
    if config.wandb != "auto":
        return config.wandb
    asked = os.environ.get("WANDB_MODE")
    if asked in ("online", "offline", "disabled"):
        return cast("Mode", asked)
    return "online" if _has_key() else "offline"


def open_wandb(
    config: LoggerConfig,
    mode: Mode,
    folder: Path,
    run_id: str,
    group: str,
    tags: list[str],
    content: dict[str, Any],
) -> WandbLogger | None:
    """The logger of one run, or None when W&B is disabled.

    Args:
        config: project, entity, further tags.
        mode: as from ``wandb_mode``.
        folder: the run's folder; W&B writes below ``wandb/`` in it.
        run_id: the same id again continues the same W&B run.
        group: what the runs of one configuration over seeds have in common.
        tags: e.g. the task and the model.
        content: the resolved configuration, W&B's ``config``.
    """
    if mode == "disabled":
        return None
    import wandb  # a second of start-up that a run without W&B need not wait for

    run = wandb.init(
        name=run_id,
        id=run_id,
        resume=None if mode == "offline" else "allow",  # offline there is nothing to look up
        dir=folder,
        project=config.project,
        entity=config.entity,
        group=group,
        tags=[*tags, *config.tags],
        config=content,
        mode=mode,
        # the run prints for itself, and a silent W&B would still wrap the terminal's output
        settings=wandb.Settings(silent=True, console="off"),
    )
    run.define_metric("trainer/global_step")  # what WandbLogger logs beside every row
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=run)


def close_wandb(logger: WandbLogger | None) -> None:
    """Write out and end the run, so that the next one of a sweep is another."""
    if logger is not None:
        logger.experiment.finish()


def sync_hint(folder: Path) -> str | None:
    """The command that uploads what was logged offline, or None if there is nothing."""
    offline = sorted((folder / "wandb").glob("offline-run-*"))
    if not offline:
        return None
    return f"wandb sync {' '.join(str(run) for run in offline)}"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
