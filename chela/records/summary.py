"""The few lines at the end of a run: what came out, how, and where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from chela.records.format import duration, numbers, pairs
from chela.records.record import machine, number, trivial_scores


def summary_table(record: dict[str, Any], folder: Path) -> Table:
    """A finished run's record as a table for the terminal.

    Args:
        record: as written by ``write_record``.
        folder: the run's folder, as the user would type it.
    """
    table = Table(title=record["run_id"], show_header=False, title_justify="left", min_width=60)
    table.add_column(style="bold")
    table.add_column(overflow="fold")  # a path must be whole to be of use
    metric = record["protocol"]["metric"]["name"]
    tested = ("test", "metrics", metric)
    rows = {
        f"test {metric}": numbers(
            record,
            ((*tested, "value"), "{:.4f}"),
            ((*tested, "standard_error"), " ± {:.4f}"),
            ("test.n", " (n = {:,.0f})"),
        ),
        "majority class": numbers(record, ("test.majority_class_accuracy", "{:.4f}")),
        "trivial score": _baselines(record),
        "selected at": numbers(
            record,
            ("best.step", "step {:,.0f}"),
            ("best.value", f", validation {metric} {{:.4f}}"),
        ),
        "protocol": ", ".join([record["protocol"]["name"], *_seen(record)]),
        "data": _data(record["data"]),
        "parameters": numbers(record, ("parameters.total", "{:,.0f}")),
        "steps": numbers(
            record, ("training.steps", "{:,.0f}"), ("training.epochs", " ({:.2f} epochs)")
        ),
        "speed": numbers(record, ("training.tokens_per_second", "{:,.0f} tokens/s on"))
        + f" {machine(record) or 'hardware that is not recorded'}",
        "operations": pairs(record.get("implementations")),
        "wall time": duration(number(record, "training.wall_seconds") or 0),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    table.add_section()
    table.add_row("folder", Text(str(folder)))
    for name, file in (record.get("files") or {}).items():
        table.add_row(Text(str(name)), Text(str(file)))
    return table


def _seen(record: dict[str, Any]) -> list[str]:
    """How the test saw its tokens, where that is said: context and stride."""
    return [f"{name} {value:,}" for name, value in record["protocol"].get("evaluation", {}).items()]


def _data(data: dict[str, Any]) -> str:
    source = f"{data['source']}, a stand-in" if data["stand_in"] else data["source"]
    return f"{data['task']} ({source}), fingerprint {data['fingerprint'][:12]}"


def _baselines(record: dict[str, Any]) -> str:
    """The best of the trivial scores that the data came with, if they came with any."""
    scores = trivial_scores(record)
    best = max(scores, key=lambda name: scores[name], default=None)
    return "" if best is None else f"{scores[best]:.4f} ({best})"
