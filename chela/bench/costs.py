"""GPU hours of the Long Range Arena's recipes, from records and measured speeds.

    chela costs                          of outputs/records, on an H200
    chela costs outputs --speeds outputs/efficiency/efficiency.csv     of one's own

Of each model and task, one seed: the wall time of the recipe's own record; where there is none the
tokens of the recipe at a rate that was measured, of the same model and task with other choices (~),
or, from the table of ``chela efficiency``, of the model at the nearest length (~~). Records count
that the GPU of that table made. Evaluation is in wall times alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from chela.bench.efficiency import Cost, from_csv
from chela.config.choices import CONFIGS
from chela.config.schema import RunConfig, compose_run
from chela.errors import RunError
from chela.records.collect import Run, collect
from chela.report.published import LRA

# Positions of an epoch where no record of the task says, and of a sample.
POSITIONS = {"retrieval": (147_086 * 8_000, 4_000), "pathx": (160_000 * 16_384, 16_384)}
SEEDS = 3
PLACES = {"one GPU": 1, "one node of eight": 8, "four nodes": 32}


@dataclass(frozen=True)
class Hours:
    """Of one seed of a recipe, on one GPU."""

    hours: float
    mark: str  # "": its own record; "~": another one's rate; "~~": a speed at the nearest length

    def __str__(self) -> str:
        text = f"{self.hours:.2f}" if self.hours < 1 else f"{self.hours:.2g}"
        return f"{self.mark}{text}" if self.hours < 100 else f"{self.mark}{self.hours:,.0f}"


def hours_of(
    config: RunConfig, runs: Sequence[Run], speeds: Sequence[Cost], epoch: tuple[float, float]
) -> Hours:
    """What a seed of a recipe takes.

    Args:
        config: of the recipe.
        runs: finished ones of its task and model.
        speeds: of its model at some lengths.
        epoch: tokens of a pass over the training split, and of a sample.

    Raises:
        RunError: its model was measured nowhere.
    """
    own = [run for run in runs if run.identity == config.identity]
    if walls := [wall for run in own if (wall := run.number("training.wall_seconds"))]:
        return Hours(median(walls) / 3600, "")
    each, length = epoch
    tokens = config.trainer.max_epochs * each
    if rates := [rate for run in runs if (rate := run.number("training.tokens_per_second"))]:
        return Hours(tokens / median(rates) / 3600, "~")
    known = {cost.length: cost.training for cost in speeds if cost.training}
    if not known:
        raise RunError(f"no speed of {config.model.name} was measured.\n  try: chela efficiency")
    return Hours(tokens / known[min(known, key=lambda at: abs(at - length))] / 3600, "~~")


def epoch_of(task: str, runs: Sequence[Run]) -> tuple[float, float]:
    """Tokens of a pass over the training split, and of a sample, from a record or ``POSITIONS``.

    Raises:
        RunError: neither says.
    """
    for run in runs:
        mean = run.number("data.splits.train.mean_length")
        if mean is not None:
            return mean * run.rows["train"], mean
    if task not in POSITIONS:
        raise RunError(f"no record of {task} is there to say how long its samples are")
    return POSITIONS[task]


def as_markdown(table: Mapping[str, Mapping[str, Hours]], where: str) -> str:
    """The hours of each model and task, and what several seeds of all take on more GPUs.

    Args:
        table: by model, by task.
        where: hardware and versions of the speeds.
    """
    tasks = [LRA[task].title for task in next(iter(table.values()))]
    lines = [
        f"Hours of one GPU for one seed ({where}); ~ and ~~ by arithmetic:",
        "",
        f"| | {' | '.join(tasks)} | all |",
        "|---" * (len(tasks) + 2) + "|",
    ]
    for model, cells in sorted(table.items(), key=lambda row: _total(row[1].values())):
        total = Hours(_total(cells.values()), "")
        lines.append(f"| {model} | {' | '.join(map(str, cells.values()))} | {total} |")
    every = [each for cells in table.values() for each in cells.values()]
    longest = max(each.hours for each in every)
    lines += ["", f"Hours of {SEEDS} seeds of all, a run on each GPU, by arithmetic:", ""]
    lines += ["| " + " | ".join(PLACES) + " |", "|---" * len(PLACES) + "|"]
    spread = (max(SEEDS * _total(every) / gpus, longest) for gpus in PLACES.values())
    lines.append("| " + " | ".join(f"{each:,.0f}" for each in spread) + " |")
    lines.append(
        f"\nNo less than the longest run, {longest:,.0f} hours, unless it has several GPUs."
    )
    return "\n".join(lines)


def _total(cells: Iterable[Hours]) -> float:
    return sum(each.hours for each in cells)


def main(arguments: Sequence[str]) -> None:
    """Print the table of what the command line names."""
    parser = argparse.ArgumentParser(
        prog="chela costs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    records = Path("outputs/records")
    parser.add_argument("folders", nargs="*", type=Path, default=[records], help="with runs")
    speeds = records / "gpu" / "h200-efficiency.csv"
    parser.add_argument("--speeds", type=Path, default=speeds, help="of `chela efficiency`")
    options = parser.parse_args(arguments)
    try:
        known = from_csv(options.speeds.read_text())
    except (OSError, ValueError) as error:
        raise RunError(
            f"cannot read {options.speeds}: {error}\n  try: in a checkout, or --speeds <the "
            "efficiency.csv of chela efficiency>"
        ) from error
    where = known[0].where
    runs = [
        run
        for run in collect(options.folders).runs
        if run.status == "finished" and (run.text("hardware.gpu") or "none") in where
    ]
    table: dict[str, dict[str, Hours]] = {}
    for model in sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml")):
        speeds_of = [cost for cost in known if cost.model == model]
        table[model] = {}
        for task in LRA:
            of_task = [run for run in runs if run.task == task]
            table[model][task] = hours_of(
                compose_run([f"task={task}", f"model={model}"]),
                [run for run in of_task if run.model == model],
                speeds_of,
                epoch_of(task, of_task),
            )
    print(as_markdown(table, where))
