"""What every command of the project shares: errors shown as a message and a remedy."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from chela.config import resolvers
from chela.config.choices import CONFIGS, SWEEP, offered, own_folders
from chela.config.identity import flat
from chela.config.mistakes import in_a_file, refuse_mistyped, while_composing
from chela.disk import disk_error, explain_disk
from chela.errors import ChelaError, ConfigError, OwnError, suggestion
from chela.launch import plugins
from tasks.errors import UserError
from tasks.screen import Screen, settle_streams

# before Hydra composes, so that --cfg job --resolve and a sweep can use them
resolvers.register()
plugins.register()

# Errors that the user can put right: their message is enough. Others are defects of ours.
PLAIN = (UserError, HydraException, OmegaConfBaseException)
KEYS = (ConfigAttributeError, ConfigKeyError)
PARENT = os.getppid()  # torchrun, or the first of several processes
PATIENCE = 10.0  # seconds by which processes that were started together may be apart
PAUSE = 0.1  # seconds between two looks at it
TRAILER = re.compile(r"\s+(full_key: |(object|reference)_type=)")


@contextmanager
def plain_errors(
    words: Sequence[str] = (), patience: float | None = None, goes_on: bool = False
) -> Iterator[None]:
    """Print errors that the user can put right as one message, and exit with status 1.

    The status is the error's own: of a run that another process is at ``InUse.STATUS``. Of the
    processes of one run, the first of each node says what all of them meet.

    Anything else is a defect of ours and keeps its traceback. ``CHELA_TRACEBACK=1`` shows the
    traceback of every error.

    Args:
        words: of the command, if Hydra is to read them.
        patience: see ``settle_streams``.
        goes_on: whether the command, repeated after Ctrl-C, uses what it has prepared.
    """
    settle_streams(patience)
    os.environ.setdefault(
        "HYDRA_FULL_ERROR", "1"
    )  # Hydra hands its exceptions on instead of printing
    try:
        with _as_raised():
            refuse_mistyped(words)
            yield
    except Exception as error:
        plain = is_plain(error) or while_composing(error)
        if not plain or os.environ.get("CHELA_TRACEBACK") == "1":
            raise
        if isinstance(error, OwnError) or not _is_said():
            Screen(stderr=True).tell(f"error: {explain(error)}")
        sys.exit(error.STATUS if isinstance(error, ChelaError) else 1)
    except KeyboardInterrupt:  # outside of training, which saves itself and says how to go on
        said = "interrupted; what was prepared stays, repeat the command to go on"
        Screen(stderr=True).say(said if goes_on else "")  # the line that was begun ends here
        sys.exit(130)


def _is_said() -> bool:
    """Whether the first process of this node has said what this one has met as well.

    It is left the time for that: torchrun and srun end all processes with the one that ends first.
    Which has not ended by then has not met it.
    """
    if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0":
        return False
    end = monotonic() + PATIENCE
    while os.getppid() == PARENT and monotonic() < end:
        sleep(PAUSE)
    return os.getppid() != PARENT


def run_hydra(
    function: Callable[[DictConfig], Any],
    words: Sequence[str],
    patience: float | None = None,
    sweeps: bool = False,
) -> None:
    """Call a function with the configuration that Hydra composes of a command line.

    What ``hydra.main`` does, which knows no words but those of ``sys.argv``: the name of a command
    is one of these, and the processes of several devices are started with all of them.

    Args:
        function: takes the configuration.
        words: flags and overrides in any order.
        patience: see ``settle_streams``.
        sweeps: whether it returns an accuracy, which the end of a sweep tells.
    """
    with plain_errors(words, patience, goes_on=True):
        version.setbase("1.3")
        parser = get_args_parser()
        given = parser.parse_args(arranged(words, sweeps))
        if given.help and not sweeps:  # of another command than train
            said = (sys.modules[function.__module__].__doc__ or "").strip().replace("'", r"\'")
            given.overrides.append(f"hydra.help.header='{said}'")
        _run_hydra(given, parser, function, config_path=str(CONFIGS), config_name="config")


def arranged(arguments: Sequence[str], sweeps: bool) -> list[str]:
    """A command line with Hydra's flags first: Hydra takes no overrides on both sides of a flag.

    Raises:
        ConfigError: flags that exclude each other, or ``-m`` where nothing is trained.
    """
    given = get_args_parser().parse_intermixed_args(list(arguments))
    if given.multirun and not sweeps:
        raise ConfigError("-m is for chela train.\n  try: a command for each configuration")
    if given.multirun and (given.cfg or given.info):
        raise ConfigError(
            "-m runs many configurations, --cfg and --info show one.\n"
            "  try: without -m, and one value for each key"
        )
    if given.experimental_rerun:
        raise ConfigError("--experimental-rerun is not for here: repeat the command to go on")
    if given.resolve and not (given.cfg or given.help):
        raise ConfigError("--resolve is a part of --cfg.\n  try: --cfg job --resolve")
    flags = list(arguments)
    for override in given.overrides:
        flags.remove(override)
    return [*flags, *given.overrides]


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


def is_plain(error: BaseException) -> bool:
    """Whether the user can put it right, so that its message is enough."""
    return isinstance(error, PLAIN) or disk_error(error) is not None


def explain(error: BaseException) -> str:
    """What went wrong and what the choices are, in the words of the command line."""
    if not isinstance(error, PLAIN) and (disk := disk_error(error)):
        return explain_disk(disk)
    cause = error.__cause__
    if isinstance(error, HydraException) and isinstance(cause, UserError):
        return explain(cause)  # Hydra has called a part of ours, a launcher
    composing = while_composing(error)
    if isinstance(error, MissingConfigException) and (message := _unknown_choice(error)):
        return message
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        if message := _unknown_key(cause):
            return message
        composing = True
    if composing and (message := in_a_file(error, sys.argv)):
        return message
    text = str(error) or str(cause or type(error).__name__)
    if key := getattr(error, "full_key", None) or getattr(cause, "full_key", None):
        text += f"\n  in {key}"
    if not isinstance(error, PLAIN) and not composing:
        text = f"{type(error).__name__}: {text}"
    return _without_trailer(text.split("Config search path:")[0])


def _without_trailer(text: str) -> str:
    """Without the lines in which OmegaConf names its own types."""
    lines = [each for each in text.splitlines() if not TRAILER.match(each)]
    return "\n".join(dict.fromkeys(lines)).strip()


def _unknown_key(cause: OmegaConfBaseException) -> str | None:
    parent = cause.parent_node
    if not isinstance(parent, DictConfig) or not isinstance(cause, KEYS):
        return None
    choices = {str(key) for key in parent if key != "hydra"}
    of_a_launcher = str(cause.full_key).startswith("hydra.launcher.")
    if not of_a_launcher:  # perhaps it stands elsewhere
        whole: Any = parent._get_root()
        plain: Any = OmegaConf.to_container(
            OmegaConf.masked_copy(whole, sorted({*whole} - {"hydra"}))
        )
        ending = re.compile(rf"(^|[._]){re.escape(cause.key)}$")
        within = (each for each in flat(plain) if ending.search(each))
        if found := sorted(within, key=len)[:3]:
            remedy = " or ".join(f"{each}=..." for each in found)
            return f"unknown key '{cause.full_key}'.\n  try: {remedy}"
    if cause.full_key == cause.key:  # at the top, where the groups are too
        choices |= {f"+{group}" if group == SWEEP else group for group in offered()}
    remedy = "\n  try: hydra/launcher=processes beside it" if of_a_launcher else ""
    return f"unknown key '{cause.full_key}'. {suggestion(str(cause.key), choices)}{remedy}"


def _unknown_choice(error: MissingConfigException) -> str | None:
    group, _, choice = (error.missing_cfg_file or "").partition("/")
    choices = offered().get(group)
    if choices is None:  # Hydra's own groups
        return None
    typed = any(group in word and choice in word for word in sys.argv)
    name = choice.rpartition("/")[2]
    folders = [folder / group for folder in (*own_folders(sys.argv), CONFIGS)]
    if not typed and any(found for each in folders for found in each.rglob(f"{name}.yaml")):
        return (
            f"a file that is chosen builds on {group}/{choice}, which is not there.\n"
            f"  try: in its defaults the whole name from above the groups, /{group}/<folder>/{name}"
        )
    remedy = f"try: --config-dir <folder>, if {group}/{choice}.yaml in it is your own"
    if own := own_folders(sys.argv):
        remedy = f"--config-dir {own[0]} has no {group}/{choice}.yaml"
    return f"there is no {group}={choice}. {suggestion(choice, choices)}\n  {remedy}"
