"""The state of everything below an output_dir as tables: each sweep's cells, then other runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chela.records import sweeps
from chela.records.files import as_typed
from chela.records.format import duration, human
from chela.records.record import primary, read_record
from chela.records.state import RunState, run_folders, run_state
from chela.records.sweeps import Plan, SweepCell
from tasks.lease import holder_of

STYLES = {
    "finished": "green",
    "running": "bold",
    "preparing": "bold",
    "waiting": "dim",
    "failed": "red",
    "died": "red",
    "unreadable": "red",
    "interrupted": "yellow",
}
ORDER = tuple(STYLES)
LAST = ("waiting", "finished")  # below all others, where a screen that is watched may be too short
WIDE = 100  # characters of a terminal that has room for the speed, too


@dataclass(frozen=True)
class SweepState:
    """A sweep, whether a process is at it, and the state of each cell by its own overrides."""

    plan: Plan
    alive: bool
    cells: tuple[tuple[str, RunState], ...]

    @property
    def is_finished(self) -> bool:
        """Whether every cell is, so that there is nothing to see."""
        return not self.alive and all(state.status == "finished" for _, state in self.cells)


def sweep_states(root: Path) -> tuple[list[SweepState], set[Path]]:
    """The sweeps of ``root``, by name, and the folders of the runs that are theirs.

    A sweep that stopped before its first cell, as one with a mistake in its overrides does, is left
    out.
    """
    found, theirs = [], set()
    for folder in _sweep_folders(root.absolute()):
        plan, cells = sweeps.read_plan(folder), sweeps.read_cells(folder)
        leads = holder_of(folder / sweeps.LEASE) is not None
        if plan is None or not (cells or leads):
            continue
        theirs |= {_run(folder, cell) for cell in cells.values() if cell.folder}
        states = _cells(folder, plan, cells)
        alive = leads or any(state.status in ("running", "preparing") for _, state in states)
        found.append(SweepState(plan, alive, states))
    return found, theirs


def _sweep_folders(root: Path) -> list[Path]:
    """Of an output_dir, of the folder of its sweeps, or the one that is a sweep's itself."""
    if root.parent.name == sweeps.FOLDER:
        return [root]
    return sorted((root if root.name == sweeps.FOLDER else root / sweeps.FOLDER).glob("*"))


def overview(root: Path, everything: bool = False, width: int = WIDE) -> RenderableType:
    """What one wants to see while a sweep runs.

    Args:
        root: an output_dir, or a sweep's folder in it.
        everything: show the cells of sweeps, and the other runs, that are finished too; else they
            are counted.
        width: of the terminal, in characters.
    """
    states, theirs = sweep_states(root)
    parts: list[RenderableType] = []
    for sweep in states:
        parts.append(_headline(sweep))
        if everything or not sweep.is_finished:
            parts.append(_table("cell", sweep.cells, width))
            if not sweep.alive and not sweep.is_finished:
                parts.append(Text(f"to go on: {sweep.plan.command}", overflow="fold"))
    absolute = {folder: Path(os.path.realpath(folder)) for folder in run_folders(root)}
    others = [
        (str(folder.relative_to(root)), run_state(folder))
        for folder, place in absolute.items()
        if place not in theirs
    ]
    if others:
        parts.append(Text(f"other runs: {_counts([state for _, state in others])}", style="bold"))
        shown = [run for run in others if everything or run[1].status != "finished"]
        if shown:
            parts.append(_table("run", shown, width))
    return Group(*parts) if parts else Text(_nothing_below(root))


def cells_table(name: str, folder: Path, cells: list[SweepCell]) -> RenderableType:
    """What became of each cell of a sweep, with the values of those finished, and errors below."""
    table = Table(title=name, title_justify="left")
    table.add_column("cell", overflow="fold")
    table.add_column("best validation", justify="right")
    table.add_column("test", justify="right")
    labels, said = sweeps.labels([cell.overrides for cell in cells]), []
    for cell, words in zip(cells, labels, strict=True):
        best, note = "failed" if cell.best is None else f"{cell.best:.4f}", cell.error or ""
        if cell.error is None and (runner := sweeps.runner(folder, cell)):
            best, note = "running", runner.describe()
        said.append((words, best, note))
        table.add_row(*map(Text, (words, best, _tested(folder, cell))))
    return Group(table, *notes(said))


def _nothing_below(root: Path) -> str:
    """Where there are runs instead: in a folder of this one, or one or two above it."""
    here = root.absolute()
    near = [*sorted(each for each in here.iterdir() if each.is_dir()), *here.parents[:2]]
    place = next((each for each in near if next(run_folders(each), None)), None)
    remedy = "" if place is None else f"; try: chela status {as_typed(place)}"
    return f"no runs below {root} yet{remedy}"


def _cells(
    folder: Path, plan: Plan, started: dict[int, SweepCell]
) -> tuple[tuple[str, RunState], ...]:
    planned = {number: SweepCell(each) for number, each in enumerate(plan.cells)}
    cells = (planned | started).values()
    names = sweeps.labels([cell.overrides for cell in cells])
    return tuple(zip(names, [_cell_state(folder, cell) for cell in cells], strict=True))


def _cell_state(folder: Path, cell: SweepCell) -> RunState:
    state = run_state(_run(folder, cell)) if cell.folder else RunState("waiting")
    if cell.error is not None and state.status not in ("running", "preparing", "finished"):
        return replace(state, status="failed", note=cell.why)
    return state


def _run(folder: Path, cell: SweepCell) -> Path:
    return Path(os.path.realpath(folder / str(cell.folder)))


def _tested(folder: Path, cell: SweepCell) -> str:
    """What a cell was tested to; empty where there is no record of it that can be read."""
    if cell.folder is None or cell.error is not None:
        return ""
    try:
        return f"{primary(read_record(folder / cell.folder) or {})['value']:.4f}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _headline(sweep: SweepState) -> Text:
    what = "runs" if sweep.alive else "finished" if sweep.is_finished else "does not run"
    counts = _counts([state for _, state in sweep.cells])
    return Text(f"{sweep.plan.name} {what}: {counts}", style="bold")


def _counts(states: Sequence[RunState]) -> str:
    counts = Counter(state.status for state in states)
    return ", ".join(f"{counts[each]} {each}" for each in ORDER if counts[each])


def _table(what: str, runs: Sequence[tuple[str, RunState]], width: int) -> RenderableType:
    """A row for each run, and their notes below; no column that has nothing in it."""
    runs = sorted(runs, key=lambda run: (run[1].status in LAST, run[1].status == "finished"))
    states = [state for _, state in runs]
    values = [_shown(state.value, "{:.4f}".format) for state in states]
    metrics = {state.metric for state in states if state.value is not None}
    if len(metrics) == 1:
        head = f"val\n{metrics.pop()}"
    else:
        head = "validation"
        values = [value and f"{s.metric} {value}" for value, s in zip(values, states, strict=True)]
    columns = {
        "steps": [_steps(state) for state in states],
        "left": [_shown(state.seconds_left, duration) for state in states],
        "tokens/s": [_shown(state.tokens_per_second, human) for state in states if width >= WIDE],
        head: values,
    }
    columns = {name: texts for name, texts in columns.items() if any(texts)}
    table = Table()
    table.add_column(what, overflow="fold")
    table.add_column("state")
    for name in columns:
        table.add_column(name, justify="right")
    for (name, state), *texts in zip(runs, *columns.values(), strict=True):
        table.add_row(Text(name), Text(state.status, STYLES.get(state.status, "")), *texts)
    return Group(table, *notes((name, state.status, state.note) for name, state in runs))


def notes(said: Iterable[tuple[str, str, str]]) -> Iterator[Text]:
    """Lines below a table for what no column holds: once where it is the same.

    Args:
        said: of each run its name, its status and the note, which may be empty.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name, status, note in said:
        if note:
            found.setdefault((status, note), []).append(name)
    for (status, note), names in found.items():
        yield Text.assemble(f"{', '.join(names)} ", (status, STYLES.get(status, "")), f": {note}")


def _shown(value: float | None, form: Callable[[float], str]) -> str:
    return "" if value is None else form(value)


def _steps(state: RunState) -> str:
    if state.step is None or not state.steps:
        return ""
    if state.status == "finished":
        return f"{state.steps:,}"
    return f"{100 * state.step // state.steps} % of {state.steps:,}"
