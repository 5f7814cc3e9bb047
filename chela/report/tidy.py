"""The report as CSV: one line per cell, for programs."""

from __future__ import annotations

import csv
import io
from typing import Any

from chela.report.cells import Cell
from chela.report.costs import Cost, costs
from chela.report.report import Column, Report, Row

COLUMNS = (
    "origin",  # measured | published | unreadable (a record that is no cell: only file and error)
    "model",
    "variant",
    "configuration",  # hash, as in the folder's name
    "column",  # the heading: a task, an average, or a stand-in's own name
    "task",
    "data",
    "stand_in",
    "fingerprint",
    "protocol",
    "state",  # measured | published | computed | missing | running | interrupted | failed
    "accuracy",  # %, mean over the finished seeds
    "std",  # %, n - 1
    "n_seeds",  # in the mean
    "seeds",  # all of them, with their status where they are not finished
    "test_n",
    "rank_ours",
    "rank_all",
    "parameters",
    "tokens_per_second",
    "peak_memory_bytes",
    "peak_memory_of",
    "hardware",
    "source",
    "notes",
    "error",
    "folders",
)


def tidy(report: Report) -> str:
    """All cells under ``COLUMNS``; accuracies at full precision, what is not known left empty."""
    cost = {(line.model, line.task): line for line in costs(report)}
    notes = dict(report.notes)
    text = io.StringIO()
    # every text in quotes: a carriage return in a name would end the line otherwise
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    for rows, origin in ((report.ours, "measured"), (report.published, "published")):
        for row in rows:
            for column, cell in zip(report.columns, row.cells, strict=True):
                line = _line(origin, row, column, cell, notes)
                line |= _cost(cost.get((row.name, column.title)) if origin == "measured" else None)
                line["source"] = report.sources[row.source - 1] if row.source else ""
                writer.writerow(line)
    for each in report.unread:
        writer.writerow({"origin": "unreadable", "folders": each.file, "error": each.reason})
    return text.getvalue()


def _line(
    origin: str, row: Row, column: Column, cell: Cell, notes: dict[str, str]
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "origin": origin,
        "model": row.model,
        "variant": row.label,
        "column": column.title,
        "task": "" if column.kind == "average" else column.key.partition(":")[0],
        "state": cell.state if cell.mean is None else origin,
        "accuracy": "" if cell.mean is None else round(cell.mean, 6),
        "std": "" if cell.std is None else round(cell.std, 6),
        "n_seeds": cell.seeds or "",
        "rank_ours": cell.rank_ours or "",
        "rank_all": cell.rank_all or "",
        "notes": "; ".join(notes[mark] for mark in (*row.marks, *column.marks, *cell.marks)),
    }
    if column.kind == "average" and cell.mean is not None:
        found["state"] = "computed"
    if cell.runs:
        run = cell.runs[0]
        found |= {
            "configuration": run.identity,
            "data": run.source,
            "stand_in": run.stand_in,
            "fingerprint": run.fingerprint,
            "protocol": run.protocol,
            "seeds": " ".join(
                f"{run.seed}" if run.accuracy is not None else f"{run.seed}:{run.status}"
                for run in cell.runs
            ),
            "test_n": next((run.test_n for run in cell.runs if run.accuracy is not None), ""),
            "error": "; ".join(run.error for run in cell.runs if run.error),
            "folders": "; ".join(str(run.folder) for run in cell.runs),
        }
    return found


def _cost(line: Cost | None) -> dict[str, Any]:
    if line is None:
        return {}
    return {
        "parameters": line.parameters,
        "tokens_per_second": line.tokens_per_second,
        "peak_memory_bytes": line.peak_memory,
        "peak_memory_of": line.memory_of,
        "hardware": line.hardware,
    }
