"""Speed and memory of every model at growing lengths, beside the Transformer.

    chela efficiency                      1K, 2K, ... tokens until the memory ends
    chela efficiency --lengths 1024,4096 --models chela,s4d
    chela efficiency --results outputs    bubbles with the accuracies of these runs
    chela efficiency --costs outputs/efficiency/efficiency.csv
                                                      goes on from there: what is in it is kept
    chela efficiency trainer.step=compile any key of train.py, for all models

Models have the sizes of their recipes for Text, as in Mega's table, and are fed random tokens, as
many in a batch at every length. Written are efficiency.{csv,md} and two pictures: speed and memory
against length, and bubbles of accuracy on Text, speed and memory, hollow where the accuracy is a
published one.
"""

import argparse
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from chela.bench.lines import draw_lines
from chela.bench.throughput import measure_at_length
from chela.bench.words import count, counts, machine, parser_of, refuse_model
from chela.config.choices import MODELS
from chela.config.schema import RunConfig, compose_run
from chela.disk import given_folder
from chela.errors import RunError, suggestion
from chela.records.collect import collect
from chela.records.files import write_text
from chela.records.format import human, size
from chela.report.published import reference
from chela.report.table import build as build_table
from chela.training.engine import resolve

REFERENCE = "transformer"  # as in Mega's table (Ma et al. 2023, table 4)
LENGTHS = [2**power for power in range(10, 21)]  # 1K to 1M, if the memory does not end before
BUBBLES = 4096  # tokens; Text's length, as in the tables of Mega and of the arena
BUBBLES_TASK = "text"


@dataclass(frozen=True)
class Cost:
    """One model at one length; None where it does not fit into the memory."""

    model: str
    length: int
    training: float | None  # tokens per second
    inference: float | None  # tokens per second
    peak_bytes: int | None  # in training; 0 where it is not known
    where: str = ""  # hardware and versions


def as_csv(costs: Sequence[Cost]) -> str:
    """A line per model and length; a cost that is not known is left empty."""
    frame = pd.DataFrame(map(asdict, costs)).astype({"peak_bytes": "Int64"})
    return str(frame.to_csv(index=False, lineterminator="\n"))


def from_csv(text: str) -> list[Cost]:
    """What ``as_csv`` wrote.

    Raises:
        ValueError: it is another table.
    """
    kinds = {"length": int, "training": float, "inference": float, "peak_bytes": "Int64"}
    frame = pd.read_csv(io.StringIO(text), dtype=kinds)
    names = [field.name for field in fields(Cost)]
    if frame.empty or list(frame) != names:
        raise ValueError(f"this is no table of costs, whose columns are {', '.join(names)}")
    frame["where"] = frame["where"].fillna("")
    known = frame.astype(object).where(frame.notna(), None)
    return [Cost(*row) for row in known.itertuples(index=False, name=None)]


def as_markdown(costs: Sequence[Cost], facts: str) -> str:
    """A table per length: speeds and memory, and how they compare to those of the Transformer."""
    lines = [facts]
    for length in sorted({cost.length for cost in costs}):
        here = [cost for cost in costs if cost.length == length]
        nothing = Cost("", length, None, None, None)
        base = next((cost for cost in here if cost.model == REFERENCE), nothing)
        lines += [
            "",
            f"**{length:,} tokens**",
            "",
            "| model | training, tokens/s | inference, tokens/s | peak memory |",
            "|---|---|---|---|",
        ]
        for cost in here:
            cells = [
                _cell(cost.training, base.training, human),
                _cell(cost.inference, base.inference, human),
                _cell(cost.peak_bytes, base.peak_bytes, size),
            ]
            lines.append(f"| {cost.model} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw_lengths(costs: Sequence[Cost], file: Path, title: str) -> None:
    """Training speed and memory against length, a line per model."""
    points = [
        (cost.model, cost.length, cost.training / 1e6, (cost.peak_bytes or 0) / 2**30)
        for cost in costs
        if cost.training
    ]
    labels = ("length (tokens)", "training (million tokens/s)", "peak memory (GiB)")
    draw_lines(points, labels, file, title)


def draw_bubbles(
    costs: Sequence[Cost],
    own: Mapping[str, float],
    literature: Mapping[str, float],
    length: int,
    file: Path,
    title: str,
) -> bool:
    """Accuracy against training speed, memory as the bubble's area (Tay et al. 2021, figure 3).

    Args:
        costs: those at ``length`` are drawn.
        own: accuracies of our runs per model, in %.
        literature: published ones, for the models without; their bubbles are hollow. A model with
            neither is left out.
        length: of the sequences.
        file: what to write; its suffix says the format.
        title: above the picture.

    Returns:
        Whether there was anything to draw; else no file is written.
    """
    known = {**literature, **own}
    found = [c for c in costs if c.length == length and c.training and c.model in known]
    if not found:
        return False
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    largest = max(cost.peak_bytes or 1 for cost in found)
    for cost in found:
        x, y = (cost.training or 0) / 1e6, known[cost.model]
        area = 2000 * (cost.peak_bytes or 1) / largest
        if cost.model in own:
            axes.scatter(x, y, s=area, alpha=0.5)
        else:
            axes.scatter(x, y, s=area, alpha=0.5, facecolors="none", edgecolors="gray", ls="--")
        axes.annotate(cost.model, (x, y), ha="center", va="center")
    axes.margins(0.2)
    axes.set(
        title=f"{title}\nfilled: our runs; hollow: published accuracies; area: memory",
        xlabel=f"training at {length:,} tokens (million tokens/s)",
        ylabel="accuracy on Text (%)",
    )
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=150)
    return True


def _cell(value: float | None, base: float | None, shown: Callable[[float], str]) -> str:
    if value is None:
        return "does not fit"
    if not value:
        return "not known"
    return shown(value) + (f" ({value / base:.2f}x)" if base else "")


def composed(model: str, overrides: Sequence[str]) -> RunConfig:
    """The checked configuration of ``model`` with its recipe for Text."""
    return compose_run(["task=text", f"model={model}", *overrides])


def costs_of(model: str, options: argparse.Namespace, overrides: Sequence[str]) -> Iterator[Cost]:
    """A cost per length, until the memory ends."""
    config = composed(model, overrides)
    for length in options.lengths:
        try:
            speed = measure_at_length(config, length, options.tokens, options.steps)
        except torch.OutOfMemoryError:
            yield Cost(model, length, None, None, None)
            return
        yield Cost(model, length, speed.step, speed.evaluation, speed.peak_bytes)


def line(cost: Cost) -> str:
    """What is printed of a cost when it is known."""
    if cost.training is None:
        return f"{cost.model:20} {cost.length:9,}  does not fit"
    speeds = [human(cost.training), human(cost.inference or 0)]
    peak = size(cost.peak_bytes) if cost.peak_bytes else "not known"  # on a CPU
    return f"{cost.model:20} {cost.length:9,} {speeds[0]:>9} {speeds[1]:>9} tokens/s {peak:>10}"


def accuracies(folder: Path) -> dict[str, float]:
    """Each model's accuracy on Text in the report's table of the runs below ``folder``, in %."""
    cells = build_table(collect([folder])).cells
    found = cells[(cells["key"] == BUBBLES_TASK) & (cells["state"] == "measured")]
    return dict(zip(found["model"], found["value"], strict=True))


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write what the command line asks for."""
    parser = parser_of("efficiency", __doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="some of them")
    parser.add_argument("--lengths", type=counts, default=LENGTHS, help="in tokens, ascending")
    parser.add_argument("--tokens", type=count, default=2**17, help="of a batch")
    parser.add_argument("--steps", type=count, default=20, help="that are timed")
    parser.add_argument("--results", type=Path, help="a folder with runs of Text, for the bubbles")
    parser.add_argument("--costs", type=Path, help="efficiency.csv to go on from")
    parser.add_argument("--output", type=given_folder, default=Path("outputs/efficiency"))
    options, overrides = parser.parse_known_args(arguments)
    refuse_model(overrides, "--models <some of them>")
    models = options.models.split(",")
    for model in models:
        if model not in MODELS:
            raise RunError(f"there is no model '{model}'. {suggestion(model, MODELS)}")
    found = read_costs(options.costs) if options.costs else []
    known = {cost.model for cost in found}
    options.output.mkdir(parents=True, exist_ok=True)
    if missing := [model for model in models if model not in known]:
        command = " ".join(["chela efficiency", *arguments])
        found = measured(missing, found, options, overrides, command)
    draw_lengths(found, options.output / "lengths.png", found[0].where)
    own = accuracies(options.results) if options.results else {}
    literature = reference(BUBBLES_TASK)
    file = options.output / "bubbles.png"
    if not draw_bubbles(found, own, literature, BUBBLES, file, found[0].where):
        print(f"no bubbles: no model was measured at {BUBBLES:,} tokens")
    print(f"written to {options.output}")


def measured(
    models: Sequence[str],
    known: Sequence[Cost],
    options: argparse.Namespace,
    overrides: Sequence[str],
    command: str,
) -> list[Cost]:
    """What is known and every model at every length, printed and written as they come.

    Raises:
        RunError: what is known comes from another machine.
    """
    where = machine(resolve(composed(models[0], overrides)).device)
    others = {cost.where for cost in known} - {where}
    if others:
        raise RunError(
            f"{options.costs} was measured on {', '.join(sorted(others))}, this is {where}.\n"
            "  try: without --costs"
        )
    facts = (
        f"{where}, {date.today()}; batches of {options.tokens:,} random tokens, sizes of the "
        f"recipes for Text; `{command}`"
    )
    print(facts)
    found = list(known)
    for model in models:
        for cost in costs_of(model, options, overrides):
            found.append(replace(cost, where=where))
            print(line(cost), flush=True)
            write_text(options.output / "efficiency.csv", as_csv(found))
            write_text(options.output / "efficiency.md", as_markdown(found, facts))
    return found


def read_costs(file: Path) -> list[Cost]:
    """What an earlier call measured."""
    try:
        return from_csv(file.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {file}: {error}.\n  try: without --costs") from error
