"""A run's folder: who may use it, and whether it holds something to go on from."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chela.config.schema import RunConfig, computation
from chela.errors import InUse, RunError
from chela.records.files import atomic_file, remove_unfinished
from chela.records.record import read_record
from chela.records.state import lease_of
from chela.training.checkpoints import BEST, LAST, PREVIOUS, Unreadable, read_checkpoint, step_of
from chela.training.initial import find_initial
from tasks.errors import first_line
from tasks.holder import LAPSE, Holder
from tasks.lease import Taken, hold


@dataclass(frozen=True)
class Start:
    """How a run begins: anew, from a checkpoint, or not at all because it is finished."""

    wandb_id: str
    checkpoint: Path | None = None
    step: int = 0  # of the checkpoint
    provenance: dict[str, Any] | None = None  # what the checkpoint says of its run
    finished: dict[str, Any] | None = None  # the record, when there is nothing left to do
    notice: str | None = None  # what the user should know of the choice


class RunFolder:
    """``<output_dir>/<name>-<identity>/seed<seed>``, and what lies in it."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.path = (
            Path(config.output_dir) / f"{config.name}-{config.identity}" / f"seed{config.seed}"
        )
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / LAST  # holds everything
        self.previous = self.checkpoints / PREVIOUS  # the one before
        self.best = self.checkpoints / BEST  # the weights that will be tested

    def whole(self) -> str:
        """The newest checkpoint that can be read, in words."""
        for checkpoint in (self.last, self.previous):
            with contextlib.suppress(Exception):
                return f"{checkpoint}, step {step_of(checkpoint):,}"
        return "none yet"

    @contextlib.contextmanager
    def held(self, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Keep other processes, of any machine, out of the folder while this one runs.

        Where no folder was made, the run did not start: then nothing stays behind.

        Args:
            say: told if that means waiting: for the lease of a machine that gives no sign of life.

        Raises:
            InUse: another process is at it.
        """
        said: list[Holder] = []

        def wait(holder: Holder) -> bool:
            if holder.is_silent and holder not in said:
                said.append(holder)
                say(
                    f"{holder.describe()} was at this run and gives no sign of life; "
                    f"waiting until {LAPSE:.0f} s have passed without one ..."
                )
            return holder.is_silent

        try:
            with hold(lease_of(self.path), wait):
                for each in (self.path, self.checkpoints):
                    remove_unfinished(each)
                yield
        except Taken as taken:
            raise InUse(
                f"another process is running {self.config.run_id} in {self.path}: "
                f"{taken.holder.describe()}.\n"
                "  try: wait for it, or another seed, or another output_dir"
            ) from None
        finally:
            with contextlib.suppress(OSError):  # the run is in it, or another seed's, or its lease
                self.path.parent.rmdir()

    def start(self, leads: bool = True) -> Start:
        """Decide by ``resume`` and by what is there; an earlier run is moved aside, never deleted.

        Args:
            leads: whether this process decides; one that the leading process has started finds
                out what it did, and changes nothing.

        Raises:
            RunError: the checkpoint named by ``resume`` is missing, unreadable or of another run.
        """
        resume = self.config.resume
        record = self._record() if resume else None
        # What began with a named checkpoint goes on from its own, or a requeued job began anew.
        if resume == "auto" or (record is not None and record["config"].get("resume") == resume):
            if record is not None and record["status"] == "finished":
                return Start(record.get("wandb_id") or self.config.run_id, finished=record)
            if self.last.exists() or self.previous.exists():
                return self._continue_latest()
        if isinstance(resume, str) and resume != "auto":
            named = Path(resume)
            ours = named.resolve().parent == self.checkpoints.resolve()
            # the leading process has made a copy of another one's, which it may have moved aside
            return self._continue(named if leads or ours else self.last)
        return self._anew() if leads else Start(self.config.run_id)

    def _record(self) -> dict[str, Any] | None:
        try:
            return read_record(self.path)
        except ValueError as error:
            raise RunError(
                f"the record in {self.path} cannot be read ({first_line(error)}).\n"
                "  try: delete record.json (the run then goes on from its checkpoint), or "
                "resume=false"
            ) from error

    def _continue_latest(self) -> Start:
        """Go on from the last checkpoint, or from the one before if that cannot be read."""
        try:
            return self._continue(self.last)
        except Unreadable as error:
            if not self.previous.exists():
                raise
            start = self._continue(self.previous)
            notice = f"{first_line(error)}; going on from {self.previous.name} instead"
            return replace(start, notice=notice)

    def _continue(self, checkpoint: Path) -> Start:
        if not checkpoint.is_file():
            raise Unreadable(
                f"resume={checkpoint}: there is no such file.\n"
                "  try: resume=auto (continue if there is something), or resume=false (start anew)"
            )
        content = read_checkpoint(checkpoint)
        _refuse_weights_alone(content, checkpoint)
        try:
            provenance = dict(content["callbacks"]["Provenance"])
            wandb_id, theirs = str(provenance["wandb_id"]), dict(provenance["config"])
            best_step = int(content["callbacks"]["Checkpointer"]["best_step"])
        except (KeyError, TypeError, ValueError) as error:
            raise Unreadable(
                f"{checkpoint} is no checkpoint of a run ({first_line(error)} is not in it)\n"
                "  try: resume=false (start anew; what is there is moved aside)"
            ) from error
        self._same_run(theirs, checkpoint)
        if checkpoint.resolve().parent != self.checkpoints.resolve():
            self._adopt(checkpoint, best_step)
            checkpoint = self.last
        return Start(wandb_id, checkpoint, content["global_step"], provenance)

    def _same_run(self, theirs: dict[str, Any], checkpoint: Path) -> None:
        ours = {"seed": self.config.seed, **computation(self.config)}
        wrong = sorted(
            key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)
        )
        if wrong:
            lines = [
                f"  {key}: {theirs.get(key, 'off')} there, {ours.get(key, 'off')} here"
                for key in wrong
            ]
            raise RunError(
                f"{checkpoint} belongs to another run; to resume exactly, set the same:\n"
                + "\n".join(lines)
            )

    def _adopt(self, checkpoint: Path, best_step: int) -> None:
        """Copy a checkpoint of another folder, with the best weights so far, to where a run has it.

        Raises:
            RunError: these weights are not beside it, and the test may need them.
        """
        best = checkpoint.with_name(BEST)
        if best_step and not best.is_file():
            raise RunError(
                f"{checkpoint} has its best validation at step {best_step}, but no {BEST} with "
                f"the weights of that step beside it.\n  try: copy {BEST} too"
            )
        place, here = checkpoint.resolve(), self.path.resolve()
        earlier = self._set_aside()
        if place.is_relative_to(here):  # it has just been moved with what was there
            moved = self.path.with_name(f"{self.path.name}.earlier-{earlier}")
            checkpoint = moved / place.relative_to(here)
            best = checkpoint.with_name(BEST)
        for source, target in ((best, self.best), (checkpoint, self.last)):
            if source.is_file():
                with source.open("rb") as whole, atomic_file(target) as copy:
                    shutil.copyfileobj(whole, copy)

    def _set_aside(self) -> int:
        """Make way for a new run; returns the number of the latest earlier one."""
        name = re.compile(rf"{self.path.name}\.earlier-(\d+)")
        found = map(name.fullmatch, (each.name for each in self.path.parent.glob("*")))
        earlier = max((int(each[1]) for each in found if each), default=0)  # some may be deleted
        if self.path.exists() and any(self.path.iterdir()):
            earlier += 1
            self.path.rename(self.path.with_name(f"{self.path.name}.earlier-{earlier}"))
        return earlier

    def _anew(self) -> Start:
        config = self.config
        if config.start_from is not None:  # refused before anything is moved aside
            find_initial(Path(config.output_dir), config.start_from, config.seed)
        earlier = self._set_aside()
        # a second attempt at the same run is another run in W&B, or it would overwrite the first
        suffix = f"-attempt{earlier + 1}" if earlier else ""
        return Start(wandb_id=f"{self.config.run_id}{suffix}")


def _refuse_weights_alone(content: dict[str, Any], checkpoint: Path) -> None:
    if "state_dict" in content and "callbacks" not in content:
        raise RunError(
            f"resume={checkpoint}: this file holds weights only, and a run goes on from all it had."
            f"\n  try: resume={checkpoint.with_name(LAST)}, or start_from=<name-hash of its run>: "
            "another run begins with these weights"
        )
