"""A sweep's own files: what its cells are, and what became of each; the runs keep the rest.

``<output_dir>/sweeps/<name>/sweep.json`` is the plan, ``cells/<number>.json`` what became of a
cell, written by whichever process ran it; beside it ``<number>.log``, the output of a cell that had
a process of its own. A lease beside the plan is of the process that wrote it. Any number of
processes may be given the same sweep: who is at a cell is the lease of its run.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from chela.records.files import write_text
from chela.records.record import is_number, read_json
from chela.records.state import lease_of
from tasks.holder import Holder
from tasks.lease import holder_of

FOLDER = "sweeps"  # below an output_dir
PLAN, CELLS, LEASE = "sweep.json", "cells", ".lease"
NAME = "CHELA_SWEEP"  # in the environment of its cells, whichever processes run them


@dataclass(frozen=True)
class Plan:
    """What a sweep is going to do."""

    name: str
    command: str
    cells: list[list[str]]  # the overrides of each; empty: not known beforehand


@dataclass(frozen=True)
class SweepCell:
    """What is known of one cell that has been started."""

    overrides: list[str]
    folder: str | None = None  # of its run, from the sweep's; None: it cannot be configured
    error: str | None = None
    best: float | None = None  # what selects, of the best validation, when it finished

    @property
    def has_ended(self) -> bool:
        """Whether it has said itself what became of it."""
        return self.error is not None or self.best is not None

    @property
    def why(self) -> str:
        """The first line of its error."""
        return (self.error or "").strip().partition("\n")[0] or "it gave no reason"


def sweep_name() -> str | None:
    """The sweep that this process is a part of: its group in Weights & Biases; None outside one."""
    return os.environ.get(NAME)


def write_plan(folder: Path, plan: Plan) -> None:
    """Begin a sweep, or begin it again: what failed is forgotten, since it will run again.

    Args:
        folder: of the sweep, named after its cells.
        plan: what will be done.
    """
    for number, cell in read_cells(folder).items():
        if cell.error is not None:
            _file(folder, number).unlink(missing_ok=True)
    write_text(folder / PLAN, json.dumps(asdict(plan), indent=1) + "\n")


def read_plan(folder: Path) -> Plan | None:
    """The plan in ``folder``; None if there is none, or none that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        plan = Plan(**read_json(folder / PLAN))
        if all(map(_are_texts, [[plan.name, plan.command], *plan.cells])):
            return plan
    return None


def write_cell(folder: Path, number: int, cell: SweepCell) -> None:
    """Keep what is known of a cell, replacing what was known of it before."""
    write_text(_file(folder, number), json.dumps(asdict(cell)) + "\n")


def read_cells(folder: Path) -> dict[int, SweepCell]:
    """The cells that have been started, by number; a file that cannot be read is as none."""
    cells = {}
    for file in sorted((folder / CELLS).glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):  # e.g. removed meanwhile
            cell = SweepCell(**read_json(file))
            texts = [each for each in (cell.folder, cell.error) if each is not None]
            if _are_texts(cell.overrides) and _are_texts(texts) and _is_best(cell.best):
                cells[int(file.stem)] = cell
    return cells


def finish_cell(folder: Path, number: int, error: str | None, best: float | None) -> None:
    """Add the outcome to what is known of a cell that has been started."""
    cell = read_cells(folder).get(number, SweepCell([]))
    write_cell(folder, number, replace(cell, error=error, best=best))


def runner(folder: Path, cell: SweepCell) -> Holder | None:
    """The living process that is at a cell, of whatever machine; None: there is none."""
    return None if cell.folder is None else holder_of(lease_of(folder / cell.folder))


def log_file(folder: Path, number: int) -> Path:
    """Where the output of a cell with a process of its own is kept."""
    return folder / CELLS / f"{number:06d}.log"


def labels(cells: list[list[str]], planned: list[list[str]] | None = None) -> list[str]:
    """What tells each cell from the others: its overrides without those that all have in common.

    Args:
        cells: the overrides of each.
        planned: of all cells of the sweep; None: there are no others; empty: it is not known.
    """
    among = cells if planned is None else planned
    common = set.intersection(*map(set, among or [[]]))
    own = ([each for each in cell if each not in common] for cell in cells)
    return [" ".join(each) or "the one cell" for each in own]


def _is_best(value: Any) -> bool:
    return value is None or isinstance(value, float) or is_number(value)


def _are_texts(values: Any) -> bool:
    """Whether these are texts without the one character that no path and no argument can hold."""
    each_is = (isinstance(each, str) and "\0" not in each for each in values)
    return isinstance(values, list) and all(each_is)


def _file(folder: Path, number: int) -> Path:
    return folder / CELLS / f"{number:06d}.json"
