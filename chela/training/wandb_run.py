"""The run in Weights & Biases: through Lightning's logger, offline unless there is a key."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from lightning.pytorch.loggers import WandbLogger

from chela.training.settings import LoggerConfig


def wandb_mode(config: LoggerConfig) -> str:
    """``online``, ``offline`` or ``disabled``: what ``auto`` means on this machine.

    The environment's ``WANDB_MODE`` decides over ``auto``; without it, a key decides (from
    ``WANDB_API_KEY`` or from ``wandb login``).
    """
    if config.wandb != "auto":
        return config.wandb
    asked = os.environ.get("WANDB_MODE")
    if asked in ("online", "offline", "disabled"):
        return asked
    return "online" if _has_key() else "offline"


def open_wandb(
    config: LoggerConfig,
    mode: str,
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
    logger = WandbLogger(
        name=run_id,
        id=run_id,
        save_dir=folder,
        project=config.project,
        entity=config.entity,
        group=group,
        tags=[*tags, *config.tags],
        config=content,
        mode=mode,
        # the run prints for itself, and a silent W&B would still wrap the terminal's output
        settings=wandb.Settings(silent=True, console="off"),
    )
    _ = logger.experiment  # open it now, so that a wrong key shows before any work is done
    return logger


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
