"""A run in Weights & Biases: offline unless there is a key, and never what stops the training."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chela.config.checking import checked
from chela.config.command import masked_for_others
from chela.config.settings import LoggerConfig
from chela.config.today import of_today
from chela.errors import RunError
from chela.records.record import at, primary

if TYPE_CHECKING:  # a second of start-up that a run without W&B need not wait for
    import wandb

Mode = Literal["online", "offline", "disabled"]

PROJECT = "chela"  # where neither the configuration nor W&B's own settings name one

# W&B gives up for good after 125 attempts, some two hours; a server may be away for a weekend. It
# asks once a minute then, and `finish_timeout` still bounds what the end of a run waits.
ATTEMPTS = 10_000


def wandb_mode(config: LoggerConfig) -> Mode:
    """``online``, ``offline`` or ``disabled``: what ``auto`` means on this machine.

    W&B's own settings decide over ``auto`` (``WANDB_MODE``, the command ``wandb offline``); where
    they do not, a key does (``WANDB_API_KEY``, or from ``wandb login``).
    """
    if config.wandb != "auto":
        return config.wandb
    settings = _setup()
    if settings.mode == "disabled":
        return "disabled"
    if settings.mode in ("offline", "dryrun"):
        return "offline"
    return "online" if _has_key(settings) else "offline"


def logger_of(record: Mapping[str, Any], **changes: Any) -> LoggerConfig:
    """The section ``logger`` of a record's configuration, with what is younger and ``changes``.

    Raises:
        ConfigError: it has a key or a value that there is not today.
    """
    known = of_today(record["config"]).get("logger") or {}
    return checked(LoggerConfig, {**known, **changes}, "logger")


def open_wandb(
    config: LoggerConfig,
    mode: Mode,
    folder: Path,
    run_id: str,
    group: str | None,
    tags: Iterable[str],
    content: Mapping[str, Any],
    job_type: str | None = None,
    name: str | None = None,
) -> WandbRun:
    """Begin a run, or go on with the one of this id.

    Where a server does not answer or refuses, the run is logged offline instead and says so in
    ``notice``: a night of training is worth more than its upload. Who asks for ``online`` outright
    gets an error.

    What W&B's own settings say (``WANDB_PROJECT``, ``WANDB_NAME``, ``WANDB_RUN_GROUP``,
    ``WANDB_TAGS``, the command ``wandb init``) counts where the configuration leaves it open. A run
    that this process has already, a notebook's, is left alone.

    Args:
        config: project, entity, further tags, how long to wait.
        mode: as from ``wandb_mode``.
        folder: the run's folder; W&B writes below ``wandb/`` in it.
        run_id: the same id again continues the same W&B run.
        group: what the runs of a sweep have in common; None: as it is.
        tags: e.g. the task, the model and the protocol.
        content: the resolved configuration, W&B's ``config``.
        job_type: what kind of run it is, if not a training.
        name: that it has already; None: ``WANDB_NAME``, else its id.

    Raises:
        RunError: ``logger.wandb=online``, and it cannot be.
    """
    if mode == "disabled":
        return WandbRun(None, folder)
    import wandb

    own = _setup()
    # its exporter of usage statistics would write three lines a minute while a server is away
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    @masked_for_others()
    def begin(mode: Mode) -> wandb.Run:
        return wandb.init(
            name=name or own.run_name or run_id,
            id=run_id,
            resume="allow" if mode == "online" else None,  # offline there is nothing to look up
            dir=folder,
            project=config.project or own.project or PROJECT,
            entity=config.entity,
            group=own.run_group or group,
            job_type=job_type,
            tags=list(dict.fromkeys([*tags, *config.tags, *(own.run_tags or ())])),
            reinit="create_new",
            config=dict(content),
            mode=mode,
            settings=wandb.Settings(
                # the run prints for itself, and a silent W&B would still wrap the terminal's output
                silent=True,
                console="off",
                init_timeout=config.start_timeout,
                finish_timeout=config.finish_timeout,
                finish_timeout_raises=True,
                x_file_stream_retry_max=ATTEMPTS,
            ),
        )

    folder.mkdir(parents=True, exist_ok=True)  # W&B would take a temporary one else
    if mode == "offline":
        return WandbRun(begin("offline"), folder)
    try:
        return WandbRun(begin("online"), folder)
    except Exception as error:  # of many kinds, and none of them may stop a training
        reason = " ".join(str(error).split()) or type(error).__name__
        theirs = wandb.run is not None  # what follows would take W&B from whoever has that run
        if not theirs:
            wandb.teardown()  # else the failed attempt keeps the id
        if config.wandb == "online":
            raise RunError(
                f"W&B cannot be reached: {reason}\n"
                "  try: wandb login --relogin, or another WANDB_BASE_URL, or logger.wandb=auto (it "
                "goes on offline then)"
            ) from error
        if theirs:
            upload = shlex.join(["chela", "upload", str(folder)])
            return WandbRun(None, folder, f"W&B cannot be reached ({reason}); to send it: {upload}")
        _setup()
        notice = f"W&B cannot be reached, so this run is logged offline ({reason})"
        return WandbRun(begin("offline"), folder, notice)


class WandbRun:
    """A W&B run, or none (mode ``disabled``), that takes what it can and never raises.

    Attributes:
        mode: how it is logged.
        notice: what the user should know of its beginning, or None.
        delivered: whether the server has everything; known once it is closed.
    """

    def __init__(self, run: wandb.Run | None, folder: Path, notice: str | None = None) -> None:
        self.run, self.folder, self.notice = run, folder, notice
        self.mode: Mode = "disabled" if run is None else "offline" if run.offline else "online"
        self.delivered = False
        # what the server has already; offline a run is told from its beginning
        self._next_step = 0 if run is None else run.starting_step
        self._broken = False

    @property
    def offline_by_choice(self) -> bool:
        """Whether it was to be offline: by the configuration, W&B's settings or for want of a key.

        Not where a server that should have had it could not be reached.
        """
        return self.mode == "offline" and self.notice is None

    def place(self) -> dict[str, Any] | None:
        """Where it is and what it is called, for whoever uploads it later; None: nowhere."""
        if self.run is None:
            return None
        names = ("project", "entity", "group", "name")
        return {name: getattr(self.run, name) or None for name in names} | {"tags": self.run.tags}

    def describe(self) -> str:
        """``online (https://wandb.ai/...)``, ``offline`` or ``disabled``."""
        return f"online ({self.run.url})" if self.run and self.mode == "online" else self.mode

    def send(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Log rows of ``metrics.csv``, each under its step; those that the server has are left out.

        Args:
            rows: in the order of their ``step``; each is complete, for W&B takes a step once.
        """
        for row in rows:
            step = int(row["step"])
            if self.run is not None and step >= self._next_step:
                values = {name: value for name, value in row.items() if name != "step"}
                self._try(self.run.log, values, step=step)
                self._next_step = step + 1

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Set the run's final numbers, beside the last ones of each column."""
        if self.run is not None:
            self._try(self.run.summary.update, dict(values))

    def log_files(self, tables: Mapping[str, wandb.Table], artifact: wandb.Artifact) -> None:
        """Log tables beside each other in a row, and an artifact."""
        if self.run is not None:
            self._try(self.run.log, dict(tables))
            self._try(self.run.log_artifact, artifact)
            if self.mode == "online":
                seconds = self.run.settings.finish_timeout
                self._try(artifact.wait, timeout=seconds)  # an error of its upload appears here

    def close(self, exit_code: int = 0) -> None:
        """Send what is left and end the run, so that the next one of a sweep is another.

        Args:
            exit_code: of the process; over 128 it is a signal's, and the run shows as preempted.
        """
        if self.run is None:
            return
        if exit_code > 128:
            self._try(self.run.mark_preempting)
        incomplete, self._broken = self._broken, False
        self._try(self.run.finish, exit_code=exit_code)  # to let go of the run, if for nothing else
        given_up = incomplete or self._broken or self._refused()
        self.delivered = self.mode == "online" and not given_up

    def hint(self) -> str | None:
        """The command that sends what the server does not have, or None if it has everything.

        ``wandb sync`` appends all rows of a folder, whatever the server has: it is right only for a
        run of which the server has nothing.
        """
        if self.run is None or self.delivered:
            return None
        if any((self.folder / "wandb").glob("run-*")):  # was online, in this session or before
            return shlex.join(["chela", "upload", str(self.folder)])
        return self.sync_command()

    def sync_command(self) -> str:
        """``wandb sync`` of this session's folder."""
        assert self.run is not None
        folder = self.folder / "wandb" / Path(self.run.settings.sync_dir).name
        return shlex.join(["wandb", "sync", str(folder)])

    def _refused(self) -> bool:
        """Whether the server refused rows: W&B then gives up, and says so in its own log alone."""
        assert self.run is not None
        log = Path(self.run.settings.log_internal)
        return log.is_file() and "filestream: fatal error" in log.read_text(errors="replace")

    def _try(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        if not self._broken:
            try:
                call(*arguments, **options)
            except Exception:  # W&B's own process died, or the end waited long enough
                self._broken = True


def final_numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a finished run's summary says in W&B: ``{"test/accuracy": 0.58, ...}``."""
    test, best = record.get("test") or {}, record.get("best") or {}
    metrics = test.get("metrics") or {}
    parts = {
        "test": {
            **{name: metric.get("value") for name, metric in metrics.items()},
            "standard_error": primary(record).get("standard_error"),
            **{key: test[key] for key in ("n", "majority_class_accuracy") if key in test},
        },
        "best": {"step": best.get("step"), at(record, "protocol.metric.name"): best.get("value")},
        "parameters": record.get("parameters") or {},
    }
    return {f"{part}/{key}": value for part, each in parts.items() for key, value in each.items()}


def _setup() -> wandb.Settings:
    """W&B's settings: from the environment, ``wandb login`` and ``wandb offline``.

    Raises:
        RunError: W&B refuses one of them.
    """
    import wandb

    try:
        return wandb.setup(settings=wandb.Settings(silent=True)).settings
    except (ValueError, wandb.errors.UsageError) as error:  # pydantic's are ValueErrors
        reason = " ".join(str(error).split("For further")[0].split())
        raise RunError(
            f"W&B refuses its own settings: {reason}\n"
            "  try: another value of that variable of the environment (WANDB_...), or logger=csv"
        ) from error


def _has_key(settings: wandb.Settings) -> bool:
    import wandb
    from wandb.sdk.lib import wbauth  # it knows under which names `wandb login` stores a key

    if settings.api_key or settings.identity_token_file:
        return True
    try:
        return wbauth.read_netrc_auth(host=settings.base_url) is not None
    except wandb.errors.AuthenticationError:
        return True  # there is one, of a wrong form: the run will say so
