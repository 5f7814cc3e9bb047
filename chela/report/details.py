"""What one run's record says, as lines for a reader."""

from __future__ import annotations

from collections.abc import Callable

from chela.config.identity import flat
from chela.records.collect import Run
from chela.records.format import duration, human, numbers, pairs, size
from chela.records.record import machine, trivial_scores

TESTED = ("test", "metrics")


def facts(run: Run) -> list[tuple[str, str]]:
    """Name and value of all that is needed to believe a number; what no record says is left out."""
    record = run.record
    source = f"{run.source}, a stand-in" if run.stand_in else run.source
    sizes = ", ".join(f"{count:,} {split}" for split, count in run.rows.items())
    earlier, commit = run.text("initial_weights.run_id"), run.text("git.commit")
    step = numbers(record, ("initial_weights.step", "step {:,.0f}"))
    trained_on = (run.text("initial_weights.data_fingerprint") or "")[:12]
    of = run.text("training.peak_memory_of") or "of what is not recorded"
    dirty = commit and record["git"].get("dirty")
    changed = ", with changes that are not in it" if dirty else ""
    digest = run.text("code.hash")
    found = {
        "status": run.status,
        "error": run.error,
        "test": run.value is not None and _tested(run),
        "trivial scores": ", ".join(
            f"{name} {score:.4f}" for name, score in trivial_scores(record).items()
        ),
        "selected": numbers(
            record,
            ("best.step", "step {:,.0f}"),
            ("best.value", lambda best: f", validation {run.metric} {best:.4f}"),
        ),
        "protocol": f"{run.protocol}: {run.selection}",
        "data": f"{run.task} ({source}): {sizes}; test sequences up to {run.longest:,} long",
        "fingerprint": run.fingerprint,
        "parameters": numbers(record, ("parameters.total", "{:,.0f}")),
        "began with": earlier and f"{earlier}, {step}, trained on data {trained_on}",
        "training": numbers(
            record,
            ("training.steps", "{:,.0f} steps"),
            ("training.planned_steps", " of {:,.0f} planned"),
            ("training.skipped_steps", ", {:,.0f} skipped"),
            ("training.epochs", ", {:.2f} epochs"),
            ("training.tokens_per_second", lambda speed: f", {human(speed)} tokens/s"),
            ("training.wall_seconds", lambda seconds: f", {duration(seconds)}"),
            ("training.sessions", ", {:.0f} session(s)"),
        ),
        "peak memory": numbers(
            record, ("training.peak_memory_bytes", lambda peak: f"{size(peak)} ({of})")
        ),
        "hardware": machine(record),
        "system": run.text("hardware.system"),
        "host": run.text("hardware.host"),
        "batch job": run.text("batch_job"),
        "precision": run.text("precision"),
        "operations": pairs(record.get("implementations")),
        "versions": pairs(record.get("versions")),
        "code": commit and f"{commit}{changed}{f'; model code {digest}' if digest else ''}",
        "command": run.text("command"),
        "started": run.text("started"),
        "folder": str(run.folder),
    }
    return [(name, value) for name, value in found.items() if value]


def configuration(run: Run) -> list[tuple[str, str]]:
    """Every key of the configuration, flat, with its value."""
    return [(key, str(value)) for key, value in flat(run.record["config"]).items()]


def _tested(run: Run) -> str:
    """What selects with its standard error, then the other metrics."""
    metrics = run.record["test"]["metrics"]

    def named(name: str) -> Callable[[float], str]:
        return lambda value: f"; {name} {value:.4f}"

    others = [((*TESTED, name, "value"), named(name)) for name in metrics if name != run.metric]
    return numbers(
        run.record,
        ((*TESTED, run.metric, "value"), named(run.metric)),
        ((*TESTED, run.metric, "standard_error"), " ± {:.4f} (standard error)"),
        ("test.n", ", n = {:,.0f}"),
        ("test.majority_class_accuracy", "; majority class {:.4f}"),
        *others,
    )
