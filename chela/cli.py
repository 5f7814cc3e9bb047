"""What every command of the project shares: errors shown as a message and a remedy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from chela import launcher, resolvers
from chela.choices import SWEEP, offered
from chela.errors import ChelaError, suggestion
from tasks.errors import DataError
from tasks.screen import Screen, settle_streams

# before Hydra composes, so that --cfg job --resolve and a sweep can use them
resolvers.register()
launcher.register()

# Errors that the user can put right: their message is enough. Others are defects of ours.
PLAIN = (ChelaError, DataError, HydraException, OmegaConfBaseException)


@contextmanager
def plain_errors(patience: float | None = None) -> Iterator[None]:
    """Print errors that the user can put right as one message, and exit with status 1.

    Anything else is a defect of ours and keeps its traceback. ``CHELA_TRACEBACK=1`` shows the
    traceback of every error.

    Args:
        patience: see ``settle_streams``.
    """
    settle_streams(patience)
    os.environ.setdefault(
        "HYDRA_FULL_ERROR", "1"
    )  # Hydra hands its exceptions on instead of printing
    try:
        with _as_raised():
            yield
    except PLAIN as error:
        if os.environ.get("CHELA_TRACEBACK") == "1":
            raise
        Screen(stderr=True).say(f"error: {explain(error)}")
        sys.exit(1)
    except KeyboardInterrupt:  # outside of training, which saves itself and says how to go on
        Screen(stderr=True).say("interrupted; what was prepared stays, repeat the command to go on")
        sys.exit(130)


class JobFailed(BaseException):
    """Carries a job's error past Hydra, which would print a line of its own above ours.

    Not an ``Exception``: Hydra makes warnings of those that a callback raises.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _as_raised() -> Iterator[None]:
    try:
        yield
    except JobFailed as failed:
        raise failed.error from failed.error.__cause__ or failed.error.__context__


def explain(error: BaseException) -> str:
    """What went wrong and what the choices are, in the words of the command line.

    Args:
        error: an exception of ours, or one of Hydra's while it composed the configuration.
    """
    cause = error.__cause__
    if isinstance(error, OverrideParseException):
        return f"cannot read '{error.override}': it should look like key=value"
    if isinstance(error, MissingConfigException) and (message := _unknown_choice(error)):
        return message
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        return _unknown_key(cause) or str(error)
    text = str(error) if isinstance(error, PLAIN) else f"{type(error).__name__}: {error}"
    return text.split("Config search path:")[0].rstrip()


def _unknown_key(cause: OmegaConfBaseException) -> str | None:
    parent = cause.parent_node
    if not isinstance(parent, DictConfig) or cause.key in parent:
        return None
    choices = {str(key) for key in parent if key != "hydra"}
    if cause.full_key == cause.key:  # at the top, where the groups are too
        choices |= {f"+{group}" if group == SWEEP else group for group in offered()}
    return f"unknown key '{cause.full_key}'. {suggestion(str(cause.key), choices)}"


def _unknown_choice(error: MissingConfigException) -> str | None:
    group, _, choice = (error.missing_cfg_file or "").partition("/")
    choices = offered().get(group)
    if choices is None:  # Hydra's own groups
        return None
    return f"there is no {group}={choice}. {suggestion(choice, choices)}"
