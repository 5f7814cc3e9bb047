"""GPU hours of the Long Range Arena's recipes, from records and measured speeds.

    chela costs                          of outputs/records, on an H200
    chela costs outputs --speeds outputs/efficiency/efficiency.csv     of one's own

Of each model and task, one seed: the wall time of the recipe's own record, or of the same recipe on
a stand-in for its data; where there is none the tokens of the recipe at a rate that was measured,
of the same model and task with other choices (~), or, from the table of ``chela efficiency``, of
the model at the nearest length (~~). Records count that the GPU of that table made. Evaluation is
in wall times alone.

The plain form, kernels=torch under torch.compile, takes as many times longer as its loop does in a
log of ``chela bench-training`` on the task (~) or at the nearest length (~~).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from chela.bench.efficiency import Cost, from_csv
from chela.bench.training import Loop, loops_in
from chela.bench.words import parser_of
from chela.config.choices import MODELS
from chela.config.schema import RunConfig, compose_run, computation
from chela.errors import RunError
from chela.records.collect import Run, collect
from chela.report.published import LRA

# Positions of an epoch where no record of the task says, and of a sample.
POSITIONS = {"pathx": (160_000 * 16_384, 16_384)}
SEEDS = 3
MODEL = "chela"  # which has a plain form
# Keys that do not say how long a recipe takes.
DATA = {"task.name", "task.source", "task.data", "task.stand_in"}
RECORDS = Path("outputs/records")
LOGS = [RECORDS / "gpu" / f"h200-bench-training-{name}.txt" for name in ("recipes", "lengths")]
PLACES = {"one GPU": 1, "one node of eight": 8, "four nodes": 32}


@dataclass(frozen=True)
class Hours:
    """Of one seed of a recipe, on one GPU."""

    hours: float
    mark: str  # "": its own record; "~": another one's rate; "~~": a speed at the nearest length

    def __str__(self) -> str:
        return self.mark + _short(self.hours)

    @property
    def minutes(self) -> str:
        """The same in minutes."""
        return self.mark + _short(self.hours * 60)

    def times(self, factor: float, mark: str) -> Hours:
        """Of something slower, as ``mark`` says that it is known."""
        return Hours(self.hours * factor, max(self.mark, mark))


def _short(number: float) -> str:
    if number < 1:
        return f"{number:.2f}"
    return f"{number:.2g}" if number < 100 else f"{number:,.0f}"


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
    recipe = _without_data(computation(config))
    own = [run for run in runs if _without_data(run.choices) == recipe]
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


def plain_of(ours: Hours, task: str, length: float, logs: Sequence[Loop]) -> Hours:
    """What the plain form of a recipe takes.

    Args:
        ours: what ours does.
        task: of the recipe.
        length: of its samples.
        logs: loops of the recipe's model, both forms of each shape.

    Raises:
        RunError: no shape has both.
    """
    by_shape: dict[str, dict[str, float]] = {}
    for each in logs:
        by_shape.setdefault(each.shape, {}).setdefault(each.kernels, each.rate)
    factors = {
        shape: rates["auto"] / rates["torch"]
        for shape, rates in by_shape.items()
        if rates.keys() >= {"auto", "torch"}
    }
    if task in factors:
        return ours.times(factors[task], "~")
    lengths = {int(shape.split("x")[1]): x for shape, x in factors.items() if shape[0].isdigit()}
    if not lengths:
        raise RunError("no log has both forms of a length.\n  try: --logs <of bench-training>")
    return ours.times(lengths[min(lengths, key=lambda at: abs(at - length))], "~~")


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


def as_minutes(ours: Mapping[str, Hours], plain: Mapping[str, Hours]) -> str:
    """The minutes of one model's rows, ours and the plain form's.

    Args:
        ours: by task.
        plain: by task, too.
    """
    lines = [
        f"Minutes of one GPU for the rows of {MODEL}, one seed; ~ and ~~ by arithmetic:",
        "",
        f"| | {' | '.join(LRA[task].title for task in ours)} | all |",
        "|---" * (len(ours) + 2) + "|",
    ]
    for name, cells in (("ours", ours), ("plain form", plain)):
        row = [*cells.values(), Hours(_total(cells.values()), "")]
        lines.append(f"| {name} | {' | '.join(each.minutes for each in row)} |")
    return "\n".join(lines)


def _without_data(choices: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in choices.items() if key not in DATA}


def _total(cells: Iterable[Hours]) -> float:
    return sum(each.hours for each in cells)


def main(arguments: Sequence[str]) -> None:
    """Print the table of what the command line names."""
    parser = parser_of("costs", __doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[RECORDS], help="with runs")
    speeds = RECORDS / "gpu" / "h200-efficiency.csv"
    parser.add_argument("--speeds", type=Path, default=speeds, help="of `chela efficiency`")
    parser.add_argument(
        "--logs", type=Path, nargs="+", default=LOGS, help="of `chela bench-training`, both forms"
    )
    options = parser.parse_args(arguments)
    try:
        known = from_csv(options.speeds.read_text())
        loops = [each for file in options.logs for each in loops_in(file.read_text())]
    except (OSError, ValueError) as error:
        raise RunError(
            f"cannot read what was measured: {error}\n  try: in a checkout, or --speeds <the "
            "efficiency.csv of chela efficiency> and --logs <what chela bench-training printed>"
        ) from error
    where = known[0].where
    runs = [
        run
        for run in collect(options.folders).runs
        if run.status == "finished" and (run.text("hardware.gpu") or "none") in where
    ]
    loops = [each for each in loops if each.model == MODEL]
    table: dict[str, dict[str, Hours]] = {}
    plain: dict[str, Hours] = {}
    for model in MODELS:
        speeds_of = [cost for cost in known if cost.model == model]
        table[model] = {}
        for task in LRA:
            # a stand-in that runs under a name of its own has its task's before a hyphen
            of_task = [run for run in runs if run.task.partition("-")[0] == task]
            table[model][task] = hours_of(
                compose_run([f"task={task}", f"model={model}"]),
                [run for run in of_task if run.model == model],
                speeds_of,
                epoch_of(task, of_task),
            )
            if model == MODEL:
                length = epoch_of(task, of_task)[1]
                plain[task] = plain_of(table[model][task], task, length, loops)
    print(as_markdown(table, where))
    print(f"\n{as_minutes(table[MODEL], plain)}")
