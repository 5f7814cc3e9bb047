"""Which cell of a sweep is next, for one of any number of processes that are given the sweep."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from chela.records import sweeps
from chela.records.state import run_state
from chela.records.sweeps import SweepCell
from tasks.screen import Screen

FOLDER = "CHELA_SWEEP_FOLDER"  # of the sweep's own files; its cells inherit it
PLUGIN = "hydra_plugins.chela"  # Hydra takes no launcher from a module that is called otherwise
PAUSE = 1.0  # seconds between two looks at cells that others run


@dataclass(frozen=True)
class Cell:
    """One cell of a sweep, before it runs."""

    number: int
    overrides: list[str]
    label: str  # what tells it from the others


class Turns:
    """The cells that wait, in order. Each is run by whichever process comes to it first.

    Args:
        folder: of the sweep.
        job_overrides: of each cell.
        first: number of the first one.
    """

    def __init__(self, folder: Path, job_overrides: Sequence[Sequence[str]], first: int) -> None:
        overrides = [list(each) for each in job_overrides]
        plan = sweeps.read_plan(folder)
        labels = sweeps.labels(overrides, None if plan is None else plan.cells)
        self.folder = folder
        self.cells = [
            Cell(number, given, f"[{number + 1}] {label}")
            for number, (given, label) in enumerate(zip(overrides, labels, strict=True), first)
        ]
        self.waiting = list(self.cells)
        self._look_again = 0.0  # time.monotonic()
        # failed since the sweep began, or finished before it did, which is to be shown
        self._known = {
            n: each for n, each in sweeps.read_cells(folder).items() if each.error is None
        }

    def next(self) -> Cell | None:
        """The next cell that nobody runs, which waits no more; None: there is none now."""
        if time.monotonic() < self._look_again:
            return None
        cells = sweeps.read_cells(self.folder)
        for cell in list(self.waiting):
            known = cells.get(cell.number)
            if known is not None and sweeps.runner(self.folder, known) is not None:
                continue
            self.waiting.remove(cell)
            # in words, since the NaN of a run that never validated does not equal itself
            before = repr(self._known.get(cell.number))
            if known is None or not known.has_ended or repr(known) == before:
                return cell
        self._look_again = time.monotonic() + PAUSE
        return None

    def put_back(self, cell: Cell) -> bool:
        """Let a cell wait that has ended without a word because another process is at it.

        Returns:
            Whether that is so.
        """
        waits = not self.known(cell).has_ended
        if waits:
            self.waiting.append(cell)
        return waits

    def may_become_free(self) -> bool:
        """Whether a cell waits whose process gives no sign of life; else they are the others'."""
        cells = sweeps.read_cells(self.folder)
        runners = [
            sweeps.runner(self.folder, cells.get(each.number, SweepCell(each.overrides)))
            for each in self.waiting
        ]
        return any(each is None or each.is_silent for each in runners)

    def finished(self, cell: Cell, run_folder: Callable[[], Path | None]) -> bool:
        """Whether a cell had finished when the sweep began, and its run is there and is the same.

        Args:
            cell: one of these.
            run_folder: where the run is that the cell's overrides mean today: a file that they name
                may have changed. Called of what had finished, for composing takes a while.
        """
        known = self._known.get(cell.number)
        if known is None or known.best is None or known.folder is None:
            return False
        place = self.folder / known.folder
        if run_state(place).status != "finished":
            return False
        today = run_folder()
        return today is not None and today.resolve() == place.resolve()

    def known(self, cell: Cell) -> SweepCell:
        """What is known of a cell."""
        return sweeps.read_cells(self.folder).get(cell.number, SweepCell(cell.overrides))

    def end(self, cell: Cell, why: str) -> str:
        """What became of a cell in words; ``why`` is kept of one that left no word itself."""
        known = self.known(cell)
        if not known.has_ended and sweeps.runner(self.folder, known) is None:
            known = replace(known, error=why)
            sweeps.write_cell(self.folder, cell.number, known)
        if known.error is not None:
            return f"failed: {known.why}"
        if known.best is None:
            return "another process runs it"
        return f"best validation {known.best:.4f}"

    def returned(self) -> list[JobReturn]:
        """What became of each cell, for Hydra."""
        results = []
        for cell in self.cells:
            best = self.known(cell).best
            result = JobReturn(overrides=cell.overrides, status=JobStatus.COMPLETED)
            result.return_value = float("nan") if best is None else best
            results.append(result)
        return results


class TurnLauncher(BasicLauncher):
    """Hydra's launcher ``turns``: one cell after the other, in this process."""

    __module__ = PLUGIN

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run the cells that no other process runs, and return what became of all."""
        turns = Turns(Path(os.environ[FOLDER]), job_overrides, initial_job_idx)
        waits = False
        while turns.waiting:
            cell = turns.next()
            if cell is not None:
                Screen().say(cell.label, "bold")
                super().launch([cell.overrides], cell.number)
                turns.put_back(cell)
            elif turns.may_become_free():
                if not waits:
                    Screen().say("waiting for cells whose processes give no sign of life ...")
                waits = True
                time.sleep(PAUSE)
            else:
                break
        return turns.returned()


def run_folder(config: DictConfig) -> Path | None:
    """Where the run of this configuration is; None if it cannot be run, which the run will say."""
    from chela.config.schema import parse  # here, so that --help need not wait for torch
    from chela.training.folder import RunFolder

    try:
        return RunFolder(parse(config)).path
    except Exception:
        return None
