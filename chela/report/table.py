"""From runs to the paper's table: which runs share a cell, which cells a row, what must be said."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from chela.records.collect import Collection, Run
from chela.report.cells import doubts, summary
from chela.report.frame import Column, Report, Row, ranked, typed
from chela.report.naming import Variant, describe, labels
from chela.report.published import LRA, departure

# Sources that are no name of their own, and names that only the benchmark's data may bear.
NO_NAME = {"official", "hub", "generated", *LRA, *(each.title.lower() for each in LRA.values())}
METRIC = "accuracy"  # of the benchmark
USUAL = "heldout"  # the protocol that needs no note
MANY = 6  # keys; a note that lists more is not read
CHANCE = 50.0  # %: what the averages of the S4 and S5 papers count for a failed Path-X

WITHOUT_PATHX = "mean of the five tasks without Path-X, as in the older tables"
WITH_PATHX = "mean of all six tasks, as in the S4 and S5 papers"
AT_CHANCE = f"Path-X has no number (failed or not run) and counts as {CHANCE:.0f}"

ONCE = "Mean ± standard deviation (n - 1) over the seeds, their number in brackets."
NO_CHELA = (
    "There is no published value of CHELA here: the tables of its paper were not available to this "
    "project. A row named chela is this project's own definition of the model, measured here."
)
NOT_COMPARABLE = "None of these data are the benchmark's, so no published value stands beside them."
AS_PRINTED = "Published values stand as printed in the source named, measured by its own protocol."


def build(collection: Collection, literature: pd.DataFrame | None = None) -> Report:
    """Arrange what was found.

    A cell holds the runs of one configuration on the same data, which differ in their seeds alone;
    further configurations of a model have rows of their own, see ``naming.labels``. The columns are
    those in which something was run. Published rows come with the first number that they can be
    compared with. What was not trained by the recipe, and does not say so in its name, says so in a
    note.
    """
    tasks = _columns(collection.runs)
    lines = _rows(collection.runs, tasks)
    own = len(lines)
    comparable = any(
        cells[key]["state"] == "measured" for _, cells in lines for key in cells if key in LRA
    )
    sources: list[str] = []
    if comparable and literature is not None:
        beside = [each.key for each in tasks if each.kind == "lra"]
        literature = literature.dropna(subset=beside, how="all")
        sources = list(literature["source"].unique())
        lines += [_published(line, sources) for line in literature.to_dict("records")]
    columns = list(tasks)
    for key, title, with_pathx, note in (
        ("average_5", "Avg. of 5", False, WITHOUT_PATHX),
        ("average_6", "Avg. of 6", True, WITH_PATHX),
    ):
        for _, cells in lines:
            cells[key] = _average(cells, with_pathx)
        if any(cells[key]["state"] == "computed" for _, cells in lines[:own]):
            place = sum(each.kind != "other" for each in columns)
            columns.insert(place, Column(key, title, "average", (note,)))
    found = [
        {
            "origin": "measured" if number < own else "published",
            "model": row.model,
            "variant": row.label,
            "column": column.title,
            "task": "" if column.kind == "average" else column.key.partition(":")[0],
            "metric": column.metric,
            "unit": column.unit,
            "direction": column.direction,
            "source": sources[row.source - 1] if row.source else "",
            "key": column.key,
            "runs": (),
            "notes": (),
            **cells.get(column.key, {"state": "missing"}),
        }
        for number, (row, cells) in enumerate(lines)
        for column in columns
    ]
    said = [AS_PRINTED, NO_CHELA] if sources else []
    if columns and all(column.kind == "other" for column in columns):
        said = [NOT_COMPARABLE]
    return Report(
        cells=ranked(typed(found), columns),
        columns=tuple(columns),
        rows=tuple(row for row, _ in lines),
        remarks=(ONCE, *_protocols(collection.runs), *said, *collection.repeated),
        sources=tuple(sources),
        unread=collection.unread,
    )


def column_key(run: Run) -> str:
    """The task, where the data and the metric are the benchmark's; else these beside it."""
    usual = run.task in LRA and departure(run) is None and run.metric == METRIC
    if usual:
        return run.task
    seen = [f"{name}={value}" for name, value in sorted(run.evaluation.items())]
    return ":".join([run.task, run.fingerprint, *[run.metric] * (run.metric != METRIC), *seen])


def _columns(runs: Iterable[Run]) -> list[Column]:
    """Those of the six tasks that were run, then what else was, in the order of their titles."""
    firsts = {column_key(run): run for run in runs}
    others = []
    names = {key: _own_name(run) for key, run in firsts.items() if key not in LRA}
    for key, name in names.items():
        run = firsts[key]
        several = list(names.values()).count(name) > 1
        hidden = run.task in LRA and not run.stand_in  # its plain name is the benchmark's
        title = f"{name} ({run.fingerprint[:8]})" if several or hidden else name
        why = departure(run) if run.task in LRA else None
        if why is None and run.stand_in:
            why = f"stand-in for the data of {run.task}"
        notes = (f"{why}; not comparable with published values",) if why else ()
        measure = run.metric, run.unit, run.direction
        others.append(Column(key, title, "other", notes, *measure))
    six = [Column(task, LRA[task].title, "lra") for task in LRA if task in firsts]
    return [*six, *sorted(others, key=lambda column: (column.title, column.key))]


def _own_name(run: Run) -> str:
    task = LRA[run.task].title if run.task in LRA else run.task
    if run.stand_in:
        task = f"{task} ({run.source})" if run.source.lower() in NO_NAME else run.source
    return ", ".join([task, *[f"{name} {value:,}" for name, value in run.evaluation.items()]])


def _rows(runs: Iterable[Run], columns: Iterable[Column]) -> list[tuple[Row, dict[str, Any]]]:
    """Our own rows in the order of their names, each with its cells by the column's key."""
    by_model: dict[str, dict[tuple[str, str, str], list[Run]]] = {}
    for run in runs:
        key = (column_key(run), run.identity, run.fingerprint)
        by_model.setdefault(run.model, {}).setdefault(key, []).append(run)
    places: dict[tuple[str, str], dict[str, list[Run]]] = {}
    hidden: dict[tuple[str, str], str] = {}  # what a row's hash stands for
    for model, groups in by_model.items():
        keys = dict.fromkeys(key for group in groups.values() for key in group[0].choices)
        variants = [Variant.of(column, group, keys) for (column, *_), group in groups.items()]
        for variant, label, group in zip(variants, labels(variants), groups.values(), strict=True):
            places.setdefault((model, label), {})[variant.column] = group
            if label.startswith(variant.folder):
                rivals = [each for each in variants if each.column == variant.column]
                hidden[model, label] = variant.behind(rivals)
    titles = {column.key: column.title for column in columns}
    lines = []
    for place, found in sorted(places.items()):
        said = [hidden[place]] if place in hidden else []
        if any(run.text("initial_weights.run_id") for group in found.values() for run in group):
            said.append("began with the weights of an earlier run; the record says which")
        name = Row(*place).name
        row = Row(*place, notes=tuple(f"{name}: {text}" for text in said))
        cells = {key: summary(group) for key, group in found.items()}
        for column, cell in cells.items():
            cell["notes"] = tuple(_notes(row, ", ".join([row.label, *said]), titles[column], cell))
        lines.append((row, cells))
    return lines


def _notes(row: Row, known: str, title: str, cell: Mapping[str, Any]) -> Iterator[str]:
    """What must be said of a cell, besides what its row's label and notes make known."""
    first = next((run for run in cell["runs"] if run.protocol != USUAL), None)
    if first is not None:
        yield f"protocol {first.protocol}: weights selected by {first.selection}"
    for text in doubts(cell["runs"]):
        yield f"{row.name} on {title}: {text}"
    if cell["n_seeds"] and (unsaid := _unsaid(known, cell["runs"][0])):
        besides = "besides what its name says, " if row.label else ""
        yield f"{row.name} on {title}: {besides}unlike the shipped recipe in {unsaid}"


def _unsaid(known: str, run: Run) -> str:
    """What a run has unlike its recipe and its row's label or note does not say.

    A recipe is for one of the six tasks, or a stand-in; at other sizes nobody expects it.
    """
    if run.task not in LRA or (departure(run) is not None and not run.stand_in):
        return ""
    said = known.split(", ")
    # the keys of the task show, in the column and its notes
    values = run.values(key for key in run.departures or () if not key.startswith("task."))
    keys = [key for key in values if describe(values, [key]) not in said]
    return describe(values, keys) if len(keys) <= MANY else f"{len(keys)} keys"


def _published(line: Mapping[Any, Any], sources: Sequence[str]) -> tuple[Row, dict[str, Any]]:
    """A line of the literature as a row."""
    row = Row(line["model"], source=sources.index(line["source"]) + 1)
    known = (task for task in LRA if not math.isnan(line[task]))
    return row, {task: {"state": "published", "value": line[task]} for task in known}


def _average(cells: Mapping[str, Any], with_pathx: bool) -> dict[str, Any]:
    """The mean over the tasks, only where all that it needs is there.

    What must be said of a cell must be said of an average that it is in.
    """
    missing = {"state": "missing"}
    chosen = {task: cells.get(task, missing) for task in LRA if with_pathx or task != "pathx"}
    notes = [note for cell in chosen.values() for note in cell.get("notes", ())]
    pathx = chosen.get("pathx", missing)
    if with_pathx and pathx["state"] in ("failed", "missing"):  # one still running has no value yet
        chosen["pathx"] = {"value": CHANCE}
        notes.append(AT_CHANCE)
    if any("value" not in cell for cell in chosen.values()):
        return missing
    errors = [cell.get("standard_error") for cell in chosen.values()]
    return {
        "state": "computed",
        "value": math.fsum(cell["value"] for cell in chosen.values()) / len(chosen),
        "standard_error": math.hypot(*(each or 0 for each in errors)) / len(chosen),
        "notes": tuple(dict.fromkeys(notes)),
    }


def _protocols(runs: Iterable[Run]) -> list[str]:
    """How the weights behind numbers without a note were selected."""
    selections = dict.fromkeys(run.selection for run in runs if run.protocol == USUAL)
    return [
        f"Unless marked, protocol {USUAL}: weights selected by {selection}; tested once."
        for selection in selections
    ]
