"""One cell of the table: the runs of one configuration on one task, summed up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, median, stdev
from typing import Any

from chela.records.collect import Run
from chela.records.record import machine

# Of several runs without a number, the state that asks most for a look comes first.
WITHOUT_NUMBER = ("failed", "interrupted", "running")


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """The cell of runs that differ in their seeds alone, by the columns of ``frame.FIELDS``.

    The mean is over the finished runs; without any, ``state`` says why there is none.
    """
    runs = sorted(runs, key=lambda run: run.seed)
    finished = [run for run in runs if run.value is not None]
    states = {run.status for run in runs}
    first = (finished or runs)[0]
    return {
        "runs": tuple(runs),
        "configuration": first.identity,
        "data": first.source,
        "stand_in": first.stand_in,
        "fingerprint": first.fingerprint,
        "protocol": first.protocol,
        "state": next((each for each in WITHOUT_NUMBER if each in states), "missing"),
        "n_seeds": len(finished),
        "seeds": " ".join(
            f"{run.seed}" if run.value is not None else f"{run.seed}:{run.status}" for run in runs
        ),
        "test_n": first.test_n,
        "error": "; ".join(run.error for run in runs if run.error),
        "folders": "; ".join(str(run.folder) for run in runs),
        **(_number(finished) if finished else {}),
        # a finished run says most of the cost; the others stand in for it only where there is none
        **_cost(finished or runs),
    }


def doubts(runs: Sequence[Run]) -> list[str]:
    """What a reader of the mean should know: the seeds that are not in it, and how seeds differ."""
    finished = [run for run in runs if run.value is not None]
    if not finished:
        return []
    missing = [f"seed {run.seed} {run.status}" for run in runs if run.value is None]
    aspects = {
        "the code's commit": "git.commit",
        "the precision": "precision",
        "the GPU": "hardware.gpu",
        "the device": "hardware.device",
    }
    unlike = [name for name, path in aspects.items() if len({r.text(path) for r in finished}) > 1]
    return [
        *([f"{', '.join(missing)}; not in the mean"] if missing else []),
        *([f"the seeds differ in {', '.join(unlike)}"] if unlike else []),
    ]


def _number(finished: Sequence[Run]) -> dict[str, Any]:
    """Mean, deviation over the seeds (n - 1; one seed has none) and the mean's standard error.

    The error has two parts: of the seeds, where there are several, and of the test split, which is
    the same for all of them and so does not shrink with their number.
    """
    values = [run.value for run in finished if run.value is not None]
    deviation = stdev(values) if len(values) > 1 else None
    of_the_split = fmean(run.error_of_value for run in finished)
    return {
        "state": "measured",
        "value": math.fsum(values) / len(values),
        "std": deviation,
        "standard_error": math.hypot((deviation or 0) / math.sqrt(len(values)), of_the_split),
    }


def _cost(runs: Sequence[Run]) -> dict[str, Any]:
    """Speed and time as the median over the seeds, sizes as the largest; None: no record says."""

    def over(path: str, sum_up: Any) -> Any:
        values = [value for run in runs if (value := run.number(path)) is not None]
        return sum_up(values) if values else None

    return {
        "parameters": over("parameters.total", _greatest),
        "tokens_per_second": over("training.tokens_per_second", median),
        "peak_memory_bytes": over("training.peak_memory_bytes", _greatest),
        "peak_memory_of": _joined(run.text("training.peak_memory_of") for run in runs),
        "steps": over("training.steps", _greatest),
        "seconds": over("training.wall_seconds", median),
        "hardware": _joined(machine(run.record) for run in runs),
    }


def _greatest(values: Sequence[float]) -> int:
    return int(max(values))


def _joined(texts: Iterable[str | None]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))
