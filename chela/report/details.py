"""What one run's record says, as lines for a reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chela.identity import flat
from chela.records.collect import Run
from chela.records.format import duration, human, size
from chela.report.cells import hardware


def facts(run: Run) -> list[tuple[str, str]]:
    """Name and value of all that is needed to believe a number; what no record says is left out."""
    found = {
        "status": run.status,
        "error": run.error,
        "test": _test(run),
        "trivial scores": _trivial(run),
        "selected": _selected(run),
        "protocol": f"{run.protocol}: {run.selection}",
        "data": _data(run),
        "fingerprint": run.fingerprint,
        "parameters": _number(run, "parameters.total", "{:,.0f}"),
        "began with": _began(run),
        "training": _training(run),
        "peak memory": _memory(run),
        "hardware": hardware(run),
        "system": run.text("hardware.system"),
        "host": run.text("hardware.host"),
        "batch job": run.text("batch_job"),
        "precision": run.text("precision"),
        "operations": _pairs(run.record.get("implementations")),
        "versions": _pairs(run.record.get("versions")),
        "code": _code(run),
        "command": run.text("command"),
        "started": run.text("started"),
        "folder": str(run.folder),
    }
    return [(name, value) for name, value in found.items() if value]


def configuration(run: Run) -> list[tuple[str, str]]:
    """Every key of the configuration, flat, with its value."""
    return [(key, str(value)) for key, value in flat(run.record["config"]).items()]


def _test(run: Run) -> str | None:
    if run.accuracy is None:
        return None
    error = _number(run, "test.standard_error", " ± {:.4f} (standard error)") or ""
    majority = _number(run, "test.majority_class_accuracy", "; majority class {:.4f}") or ""
    loss = _number(run, "test.loss", "; loss {:.4f}") or ""
    return f"accuracy {run.accuracy:.4f}{error}, n = {run.test_n:,}{majority}{loss}"


def _trivial(run: Run) -> str | None:
    """What rules without learning reach on the same data, where the preparation measured it."""
    facts = run.record["data"].get("facts")
    scores = facts.get("baselines") if isinstance(facts, Mapping) else None
    if not isinstance(scores, Mapping):
        return None
    named = {name: run.number(f"data.facts.baselines.{name}.accuracy") for name in scores}
    return ", ".join(f"{name} {value:.4f}" for name, value in named.items() if value is not None)


def _selected(run: Run) -> str | None:
    accuracy = _number(run, "best.accuracy", ", validation accuracy {:.4f}") or ""
    step = _number(run, "best.step", "step {:,.0f}")
    return step and step + accuracy


def _data(run: Run) -> str:
    source = f"{run.source}, a stand-in" if run.stand_in else run.source
    sizes = ", ".join(f"{count:,} {split}" for split, count in run.rows.items())
    return f"{run.task} ({source}): {sizes}; test sequences up to {run.longest:,} long"


def _began(run: Run) -> str | None:
    """The earlier run whose weights it began with."""
    earlier = run.text("initial_weights.run_id")
    step = _number(run, "initial_weights.step", "step {:,.0f}")
    data = (run.text("initial_weights.data_fingerprint") or "")[:12]
    return earlier and f"{earlier}, {step}, trained on data {data}"


def _training(run: Run) -> str:
    steps = _number(run, "training.steps", "{:,.0f} steps") or ""
    parts = [
        steps + (_number(run, "training.planned_steps", " of {:,.0f} planned") or ""),
        _number(run, "training.skipped_steps", "{:,.0f} skipped"),
        _number(run, "training.epochs", "{:.2f} epochs"),
    ]
    speed, seconds = run.number("training.tokens_per_second"), run.number("training.wall_seconds")
    parts += [
        None if speed is None else f"{human(speed)} tokens/s",
        None if seconds is None else duration(seconds),
        _number(run, "training.sessions", "{:.0f} session(s)"),
    ]
    return ", ".join(part for part in parts if part)


def _memory(run: Run) -> str | None:
    peak, of = run.number("training.peak_memory_bytes"), run.text("training.peak_memory_of")
    return None if peak is None else f"{size(peak)} ({of or 'of what is not recorded'})"


def _code(run: Run) -> str | None:
    commit = run.text("git.commit")
    if commit is None:
        return None
    git, digest = run.record["git"], run.text("code.hash")
    changed = ", with changes that are not in it" if git.get("dirty") else ""
    return f"{commit}{changed}{f'; model code {digest}' if digest else ''}"


def _number(run: Run, path: str, form: str) -> str | None:
    value = run.number(path)
    return None if value is None else form.format(value)


def _pairs(values: Any) -> str | None:
    if not isinstance(values, Mapping):
        return None
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
