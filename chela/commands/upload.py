"""Send to W&B what it does not have of local runs: `chela upload outputs`."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chela.errors import ConfigError, RunError
from chela.records.collect import Run, collect
from chela.track.wandb_run import final_numbers, logger_of, open_wandb
from tasks.screen import Screen

START, FINISH = 10.0, 600.0  # seconds: who waits here wants to know soon, or wants it all sent
EXIT = {"finished": 0, "failed": 1, "interrupted": 128 + 15}  # as W&B would have heard of them


def main(arguments: Sequence[str]) -> None:
    """Offer the rows of every record to the server, which takes those that it lacks.

    Raises:
        DataError: there is no run.
        RunError: the server does not answer, or not all was sent.
    """
    parser = argparse.ArgumentParser(
        usage="chela upload FOLDER [FOLDER ...]",
        description="Send to W&B what it does not have of local runs; safe to repeat.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    found = collect(parser.parse_args(arguments).folders)
    console = Screen()
    for run in found.runs:
        said = "running, or killed: it sends its rows itself when it goes on"
        if run.status != "running":
            try:
                said = upload(run)
            except ConfigError as error:  # a record from elsewhere; the others are sent
                said = f"not sent: {error}"
        console.say(f"{run.folder}: {said}")
    for each in found.unread:
        console.say(f"!  {each.file}: {each.reason}")


def upload(run: Run) -> str:
    """Send one run; returns where it is.

    Raises:
        ConfigError: its record does not say where to.
        RunError: the server does not answer, or not all was sent.
    """
    record = run.record
    # what it was opened as; offline W&B does not know a default entity
    place: Mapping[str, Any] = record.get("wandb_run") or {}
    where = {key: place[key] for key in ("project", "entity") if place.get(key)}
    asked = {"wandb": "online", "start_timeout": START, "finish_timeout": FINISH, **where}
    target = open_wandb(
        logger_of(record, **asked),
        "online",
        run.folder,
        run_id=record.get("wandb_id") or record["run_id"],
        group=place.get("group") or record.get("wandb_group"),
        tags=place.get("tags") or [run.task, run.model, run.protocol],
        content=record["config"],
        name=place.get("name"),
    )
    finished = run.status == "finished"
    rows = record.get("metrics") or []
    # the last row of a run that may go on may still get its validation
    target.send(rows if finished else rows[:-1])
    if finished:
        target.summarize(final_numbers(record))
    target.close(EXIT[run.status])
    if not target.delivered:
        raise RunError(f"{run.folder}: not all was sent.\n  try: the same command again")
    return target.describe()
