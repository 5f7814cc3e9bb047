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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

from chela.bench.efficiency import Cost, as_csv, as_markdown, draw_bubbles, draw_lengths, from_csv
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

LENGTHS = [2**power for power in range(10, 21)]  # 1K to 1M, if the memory does not end before
BUBBLES = 4096  # tokens; Text's length, as in the tables of Mega and of the arena
BUBBLES_TASK = "text"


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
    drawn = draw_bubbles(found, own, literature, BUBBLES, file, found[0].where)
    if not drawn:
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
