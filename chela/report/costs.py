"""What each cell cost: size, speed, memory, and on which hardware."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from chela.records.collect import Run
from chela.records.format import duration, human, size
from chela.report.report import Report

HEAD = ("Model", "Task", "Parameters", "Tokens/s", "Peak memory", "Steps", "Time", "Hardware")
LEGEND = "Tokens/s in training, padding not counted. Time of one run, with validation and saving."


@dataclass(frozen=True)
class Cost:
    """One cell's line of the second table; None where no record says it."""

    model: str  # with its label
    task: str  # as the column's title
    parameters: int | None
    tokens_per_second: float | None  # in training, true tokens: the median over the seeds
    peak_memory: int | None  # bytes, the largest over the seeds
    memory_of: str  # "GPU allocations" or "the process": two quantities that do not compare
    seconds: float | None  # of one run, validation and saving included: the median over the seeds
    steps: int | None
    hardware: str


def costs(report: Report) -> list[Cost]:
    """A line for each cell of ours that has a run with any of these figures."""
    lines = []
    for row, column, cell in report.cells():
        # a finished run says most; the others stand in for it only where there is none
        runs = [run for run in cell.runs if run.accuracy is not None] or list(cell.runs)
        if not runs:
            continue
        speed = _values(runs, "training.tokens_per_second")
        memory = _values(runs, "training.peak_memory_bytes")
        seconds = _values(runs, "training.wall_seconds")
        lines.append(
            Cost(
                model=row.name,
                task=column.title,
                parameters=_largest(runs, "parameters.total"),
                tokens_per_second=median(speed) if speed else None,
                peak_memory=int(max(memory)) if memory else None,
                memory_of=_joined(run.text("training.peak_memory_of") for run in runs),
                seconds=median(seconds) if seconds else None,
                steps=_largest(runs, "training.steps"),
                hardware=_joined(hardware(run) for run in runs),
            )
        )
    return lines


def texts(line: Cost) -> list[str]:
    """A line's cells under ``HEAD``, with a dash for what no record says."""
    memory = "" if line.peak_memory is None else size(line.peak_memory)
    return [
        line.model,
        line.task,
        "—" if line.parameters is None else f"{line.parameters:,}",
        "—" if line.tokens_per_second is None else human(line.tokens_per_second),
        f"{memory} ({line.memory_of})" if memory and line.memory_of else memory or "—",
        "—" if line.steps is None else f"{line.steps:,}",
        "—" if line.seconds is None else duration(line.seconds),
        line.hardware or "—",
    ]


def hardware(run: Run) -> str | None:
    """The GPU's name, or the processor's with its threads; None if the record has neither."""
    gpu, cpu = run.text("hardware.gpu"), run.text("hardware.cpu")
    threads = run.number("hardware.torch_threads")
    if gpu or not cpu or threads is None:
        return gpu or cpu
    return f"{cpu}, {threads:.0f} thread{'' if threads == 1 else 's'}"


def _values(runs: Sequence[Run], path: str) -> list[float]:
    return [value for run in runs if (value := run.number(path)) is not None]


def _largest(runs: Sequence[Run], path: str) -> int | None:
    values = _values(runs, path)
    return int(max(values)) if values else None


def _joined(texts: Iterable[str | None]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))
