"""From runs to the paper's table: which runs share a cell, which cells a row, what must be said."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from chela.records.collect import Collection, Run
from chela.report.cells import Cell, summary, unlike, without_number
from chela.report.lra import LRA, departure
from chela.report.naming import Variant, describe, differing, labels
from chela.report.published import Published
from chela.report.ranks import ranked
from chela.report.report import Column, Notes, Report, Row

Place = tuple[str, str]  # of a row: model and label

# Sources that are no name of their own, and names that only the benchmark's data may bear.
NO_NAME = {"official", "hub", "generated", *LRA, *(each.title.lower() for each in LRA.values())}
USUAL = "heldout"  # the protocol that needs no mark
LONGEST_ERROR = 300  # characters of an error below the table; the page has the whole of it
MANY = 6  # keys; a note that lists more is not read
CHANCE = 50.0  # %: what the averages of the S4 and S5 papers count for a failed Path-X

FIVE = Column("average_5", "Avg. of 5", "average")
SIX = Column("average_6", "Avg. of 6", "average")
WITHOUT_PATHX = "mean of the five tasks without Path-X, as in the older tables"
WITH_PATHX = "mean of all six tasks, as in the S4 and S5 papers"
AT_CHANCE = f"Path-X has no number (failed or not run) and counts as {CHANCE:.0f}"

ONCE = "Accuracy in %, mean ± standard deviation (n - 1) over the seeds, their number in brackets."
NO_CHELA = (
    "There is no published value of CHELA here: the tables of its paper were not available to this "
    "project. A row named chela is this project's own definition of the model, measured here."
)
NOT_COMPARABLE = "None of these data are the benchmark's, so no published value stands beside them."
AS_PRINTED = "Published values stand as printed in the source named, measured by its own protocol."


def build(collection: Collection, published: Sequence[Published]) -> Report:
    """Arrange what was found.

    A cell holds the runs of one configuration on the same data, which differ in their seeds alone;
    further configurations of a model have rows of their own, see ``naming.labels``. The six tasks
    and the published rows are there as soon as a run is of one of these; data that are not the
    benchmark's have columns of their own, after them. What was not trained by its recipe, and
    does not say so in its name, says so in a note.
    """
    runs, notes = collection.runs, Notes()
    comparable = not runs or any(column_key(run) in LRA for run in runs)
    averages = [
        replace(column, marks=(notes.mark(text),))
        for column, text in ((FIVE, WITHOUT_PATHX), (SIX, WITH_PATHX))
        if comparable
    ]
    tasks = _columns(runs, notes)
    if not comparable:
        tasks, published = tasks[len(LRA) :], []
    ours = _rows(runs, tasks, notes)
    sources = list(dict.fromkeys(line.source for line in published))
    theirs = [
        Row(
            line.model,
            tuple(Cell(line.accuracies.get(each.key), state="missing") for each in tasks),
            source=sources.index(line.source) + 1,
        )
        for line in published
    ]
    columns = tasks
    if comparable:
        columns = [*tasks[: len(LRA)], *averages, *tasks[len(LRA) :]]
        ours, theirs = ([_with_averages(row, notes) for row in rows] for rows in (ours, theirs))
    best_of_ours, best_of_all = ranked(columns, ours, theirs)
    return Report(
        columns=tuple(columns),
        ours=best_of_ours,
        published=best_of_all,
        notes=notes.listed(),
        remarks=(
            ONCE,
            *_protocols(runs),
            *([AS_PRINTED, NO_CHELA] if comparable else [NOT_COMPARABLE]),
            *collection.repeated,
        ),
        sources=tuple(sources),
        unfinished=tuple(_unfinished(ours, columns)),
        unread=collection.unread,
    )


def column_key(run: Run) -> str:
    """The task, where the data are the benchmark's; else the task and the data's fingerprint."""
    usual = run.task in LRA and departure(run) is None
    return run.task if usual else f"{run.task}:{run.fingerprint}"


def _columns(runs: Iterable[Run], notes: Notes) -> list[Column]:
    """The six tasks, then what else was found, in the order of their titles."""
    others: dict[str, Column] = {}
    firsts = {column_key(run): run for run in runs if column_key(run) not in LRA}
    names = {key: _own_name(run) for key, run in firsts.items()}
    for key, run in firsts.items():
        several = list(names.values()).count(names[key]) > 1
        hidden = run.task in LRA and not run.stand_in  # its plain name is the benchmark's
        title = f"{names[key]} ({run.fingerprint[:8]})" if several or hidden else names[key]
        why = departure(run) if run.task in LRA else None
        if why is None and run.stand_in:
            why = f"stand-in for the data of {run.task}"
        marks = (notes.mark(f"{why}; not comparable with published values"),) if why else ()
        others[key] = Column(key, title, "other", marks)
    six = [Column(task, benchmark.title, "lra") for task, benchmark in LRA.items()]
    return [*six, *sorted(others.values(), key=lambda column: (column.title, column.key))]


def _twin(variant: Variant, rivals: Sequence[Variant]) -> str:
    """What to say of a row that no key tells from another."""
    if sum(each.identity == variant.identity for each in rivals) > 1:
        return "the same configuration as another row, other data"
    others = ", ".join(each.folder for each in rivals if each.identity != variant.identity)
    return f"as {others} in all keys that both have; one is of another version of this project"


def _own_name(run: Run) -> str:
    task = LRA[run.task].title if run.task in LRA else run.task
    if not run.stand_in:
        return task
    return f"{task} ({run.source})" if run.source.lower() in NO_NAME else run.source


def _rows(runs: Sequence[Run], columns: Sequence[Column], notes: Notes) -> list[Row]:
    """The rows in the order of their names; a note says what hides behind a hash."""
    places: dict[Place, dict[str, list[Run]]] = {}
    hidden: dict[Place, str] = {}
    for model in dict.fromkeys(run.model for run in runs):
        groups: dict[tuple[str, str, str], list[Run]] = {}
        for run in runs:
            if run.model == model:
                key = (column_key(run), run.identity, run.fingerprint)
                groups.setdefault(key, []).append(run)
        keys = dict.fromkeys(key for group in groups.values() for key in group[0].choices)
        variants = [
            Variant(*place, run.values(keys), run.departures, _given_name(group))
            for place, group in groups.items()
            for run in group[:1]
        ]
        named = labels(variants)
        for variant, label, group in zip(variants, named, groups.values(), strict=True):
            places.setdefault((model, label), {})[variant.column] = group
            if label.startswith(variant.folder):
                rivals = [each for each in variants if each.column == variant.column]
                differences = describe(variant.choices, differing(rivals))
                hidden[model, label] = differences or _twin(variant, rivals)
    rows = []
    for place, found in sorted(places.items()):
        row = Row(place[0], (), place[1])
        said = [hidden[place]] if place in hidden else []
        if any(run.text("initial_weights.run_id") for group in found.values() for run in group):
            said.append("began with the weights of an earlier run; the record says which")
        marks = tuple(notes.mark(f"{row.name}: {text}") for text in said)
        known = ", ".join([row.label, *said])
        cells = _cells(row, known, found, columns, notes)
        rows.append(replace(row, cells=cells, marks=marks))
    return rows


def _given_name(runs: Sequence[Run]) -> str:
    """The ``name`` that the runs share, if it is not the one that every run has by itself."""
    usual = f"{runs[0].text('config.task.name')}-{runs[0].model}"
    names = {run.text("config.name") or "" for run in runs}
    return names.pop() if len(names) == 1 and usual not in names else ""


def _cells(
    row: Row,
    known: str,
    found: Mapping[str, Sequence[Run]],
    columns: Sequence[Column],
    notes: Notes,
) -> tuple[Cell, ...]:
    cells, name = [], row.name
    for column in columns:
        cell = summary(found.get(column.key, []))
        texts = [
            f"protocol {run.protocol}: weights selected by {run.selection}"
            for run in cell.runs
            if run.protocol != USUAL
        ][:1]
        if cell.seeds and without_number(cell):
            missing = ", ".join(without_number(cell))
            texts.append(f"{name} on {column.title}: {missing}; not in the mean")
        if unlike(cell):
            texts.append(f"{name} on {column.title}: the seeds differ in {', '.join(unlike(cell))}")
        if cell.seeds and (unsaid := _unsaid(known, cell.runs[0])):
            besides = "besides what its name says, " if row.label else ""
            texts.append(
                f"{name} on {column.title}: {besides}unlike the shipped recipe in {unsaid}"
            )
        cells.append(replace(cell, marks=tuple(notes.mark(text) for text in texts)))
    return tuple(cells)


def _unsaid(known: str, run: Run) -> str:
    """What a run has unlike its recipe and its row's label or note does not say.

    A recipe is for one of the six tasks, or a stand-in; at other sizes nobody expects it.
    """
    if run.task not in LRA or (departure(run) is not None and not run.stand_in):
        return ""
    said = known.split(", ")
    values = run.values(key for key in run.departures or () if not key.startswith("task."))
    keys = [key for key in values if describe(values, [key]) not in said]
    return describe(values, keys) if len(keys) <= MANY else f"{len(keys)} keys"


def _with_averages(row: Row, notes: Notes) -> Row:
    """Both averages after the six tasks, each only where all it needs is there.

    What must be said of a cell must be said of an average that it is in: the marks go with it.
    """
    six, others = row.cells[: len(LRA)], row.cells[len(LRA) :]
    by_task = dict(zip(LRA, six, strict=True))
    pathx = by_task.pop("pathx")
    values = [cell.mean for cell in by_task.values() if cell.mean is not None]
    marks = [mark for cell in by_task.values() for mark in cell.marks]
    five, all_six = Cell(), Cell()
    if len(values) == len(by_task):
        five = _average(values, marks)
        if pathx.mean is not None:
            all_six = _average([*values, pathx.mean], [*marks, *pathx.marks])
        elif pathx.state in ("failed", "missing"):  # one still running has no value yet
            all_six = _average([*values, CHANCE], [*marks, notes.mark(AT_CHANCE)])
    return replace(row, cells=(*six, five, all_six, *others))


def _average(values: Sequence[float], marks: Iterable[str]) -> Cell:
    return Cell(math.fsum(values) / len(values), marks=tuple(dict.fromkeys(marks)))


def _protocols(runs: Iterable[Run]) -> list[str]:
    """How the weights behind unmarked numbers were selected."""
    selections = dict.fromkeys(run.selection for run in runs if run.protocol == USUAL)
    return [
        f"Unless marked, protocol {USUAL}: weights selected by {selection}; tested once."
        for selection in selections
    ]


def _unfinished(rows: Iterable[Row], columns: Sequence[Column]) -> list[str]:
    sentences = []
    for row in rows:
        for column, cell in zip(columns, row.cells, strict=True):
            for run in cell.runs:
                if run.accuracy is None:
                    place = f"{row.name} on {column.title}, seed {run.seed}"
                    sentences.append(f"{place}: {run.status}{_reason(run)} ({run.folder})")
    return sentences


def _reason(run: Run) -> str:
    if run.status == "failed":
        error = " ".join((run.error or "no reason recorded").split())
        return f": {error if len(error) <= LONGEST_ERROR else error[:LONGEST_ERROR] + '…'}"
    if run.status == "running":
        return ", or killed without a word"
    done, planned = run.number("training.steps"), run.number("training.planned_steps")
    return "" if done is None or planned is None else f" at step {done:,.0f} of {planned:,.0f}"
