"""The few lines at the end of a run: what came out, how, and where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from chela.records.format import duration


def summary_table(record: dict[str, Any], folder: Path) -> Table:
    """A finished run's record as a table for the terminal.

    Args:
        record: as written by ``write_record``.
        folder: the run's folder, as the user would type it.
    """
    test, training, best = record["test"], record["training"], record["best"]
    table = Table(title=record["run_id"], show_header=False, title_justify="left", min_width=60)
    table.add_column(style="bold")
    table.add_column(overflow="fold")  # a path must be whole to be of use
    error = test["standard_error"]
    rows = {
        "test accuracy": f"[bold]{test['accuracy']:.4f}[/bold] ± {error:.4f} (n = {test['n']:,})",
        "majority class": f"{test['majority_class_accuracy']:.4f}",
        **_baselines(record),
        "selected at": f"step {best['step']:,}, validation accuracy {best['accuracy']:.4f}",
        "protocol": record["protocol"]["name"],
        "data": _data(record["data"]),
        "parameters": f"{record['parameters']['total']:,}",
        "steps": f"{training['steps']:,} ({training['epochs']:.2f} epochs)",
        "speed": f"{training['tokens_per_second']:,.0f} tokens/s on {_device(record)}",
        "operations": ", ".join(f"{k}: {v}" for k, v in record["implementations"].items()),
        "wall time": duration(training["wall_seconds"]),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    table.add_section()
    table.add_row("folder", str(folder))
    for name, file in record["files"].items():
        table.add_row(name, file)
    return table


def _data(data: dict[str, Any]) -> str:
    source = f"{data['source']}, a stand-in" if data["stand_in"] else data["source"]
    return f"{data['task']} ({source}), fingerprint {data['fingerprint'][:12]}"


def _baselines(record: dict[str, Any]) -> dict[str, str]:
    """The best of the trivial scores that the data came with, if they came with any."""
    found = record["data"]["facts"].get("baselines", {})
    if not found:
        return {}
    best = max(found, key=lambda name: found[name]["accuracy"])
    return {"trivial score": f"{found[best]['accuracy']:.4f} ({best})"}


def _device(record: dict[str, Any]) -> str:
    hardware = record["hardware"]
    return str(hardware.get("gpu") or f"{hardware['cpu']}, {hardware['torch_threads']} threads")
