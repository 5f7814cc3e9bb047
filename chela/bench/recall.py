"""Who recalls how much: accuracy on MQAR against the pairs asked and the size of the state.

    chela recall outputs                   recall.md and recall.png, of all finished runs of MQAR
    chela recall outputs out=FOLDER

A row of the table is models that were trained for one number of pairs each (``task=mqar``), or one
model that was trained for all of them (``task=mqar_mixture``), whose test tells them apart.

The state is what a model keeps of a whole sample to go on behind it (``chela.mixers.stepping``), in
numbers per block: matrices of attention, states of a state space, the latest inputs of a kernel of
free form, keys and values.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils._pytree import tree_leaves

from chela.config.identity import digest
from chela.disk import given_folder
from chela.errors import RunError
from chela.generation import check
from chela.hub import built
from chela.model.stepping import prefill
from chela.records.collect import Run, collect
from chela.records.files import write_text
from chela.records.record import at, number
from tasks.screen import Screen

ALONE, TOGETHER = "mqar", "mqar_mixture"  # tasks
TRAINED = {ALONE: "each alone", TOGETHER: "all at once"}  # on its numbers of pairs


@dataclass(frozen=True)
class Point:
    """Runs of one model on one number of pairs, which differ in the seed alone."""

    task: str  # in whose training were these pairs alone, or others too
    model: str
    dim: int
    length: int
    steps: int  # of training
    others: str  # a digest of all that was configured beside the pairs
    pairs: int
    state: int  # numbers per block
    accuracy: float  # %, the mean over seeds
    error: float  # its standard error, of the test and over the seeds
    seeds: int

    @property
    def row(self) -> tuple[str, str, int, int, int, int, str]:
        """What all its numbers of pairs have in common."""
        known = self.task, self.model, self.dim, self.length, self.state, self.steps
        return *known, self.others


@torch.no_grad()
def state_numbers(run: Run) -> int:
    """Numbers per block that the run's model keeps of a whole sample.

    Raises:
        RunError: it is not causal, or its code is not there.
    """
    model = check(built(dict(run.record), str(run.folder), torch.device("cpu")).eval())
    _, state = prefill(model, torch.zeros(1, run.longest, dtype=torch.long))
    kept = [each for each in tree_leaves(state) if isinstance(each, Tensor)]
    numbers = sum(
        each.numel() * (2 if each.is_complex() else 1)
        for each in kept
        if each.is_complex() or each.is_floating_point()
    )
    return numbers // len(model.backbone.blocks)


def accuracies(run: Run) -> dict[int, tuple[float, float]]:
    """What a run answers by number of pairs: accuracy and its standard error, in %."""
    if run.task == ALONE:
        pairs = run.values(["task.pairs"])["task.pairs"]
        return {pairs: (run.value or 0.0, run.error_of_value)}
    found = {}
    for pairs in at(run.record, "test.kinds") or ():
        metric = ("test", "kinds", pairs, "metrics", run.metric)
        value = number(run.record, (*metric, "value"))
        if value is not None and pairs.isdecimal():
            error = number(run.record, (*metric, "standard_error")) or 0.0
            found[int(pairs)] = 100 * value, 100 * error
    return found


def points(runs: Sequence[Run], tell: Callable[[str], object] = id) -> list[Point]:
    """The finished runs of MQAR, seeds together.

    Args:
        runs: of any tasks.
        tell: told of each run that is left out, which has no state to compare: it is not causal.

    Raises:
        RunError: there is none.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.task in TRAINED and run.value is not None and run.metric == "accuracy":
            groups.setdefault(run.identity, []).append(run)
    found = []
    for alike in groups.values():
        first, answered = alike[0], [accuracies(run) for run in alike]
        try:
            state = state_numbers(first)
        except RunError as why:
            tell(f"left out: {first.folder}: {why}")
            continue
        dim = first.values(["model.dim"])["model.dim"]
        for pairs in answered[0]:
            of_seeds = [each[pairs] for each in answered if pairs in each]
            values, errors = zip(*of_seeds, strict=True)
            n = len(values)
            over_seeds = torch.tensor(values).std().item() if n > 1 else 0.0
            error = math.hypot(over_seeds / math.sqrt(n), math.hypot(*errors) / n)
            steps = int(first.number("training.steps") or 0)
            others = digest({k: v for k, v in first.choices.items() if k != "task.pairs"})
            where = first.task, first.model, dim, first.longest, steps, others
            found.append(Point(*where, pairs, state, mean(values), error, n))
    if not found:
        raise RunError(f"there is no finished run of task={ALONE}.\n  try: -m +sweep=recall")
    return sorted(found, key=lambda point: (*point.row, point.pairs))


def as_markdown(found: Sequence[Point]) -> str:
    """A row per model and width, a column per number of pairs."""
    asked = sorted({point.pairs for point in found})
    lines = [
        "Accuracy on MQAR in % ± standard error; in brackets the seeds.",
        "",
        "| model | D | trained on | steps | length | state, numbers per block | "
        f"{' | '.join(map(str, asked))} pairs |",
        "|---|---|---|---|---|---|" + "---|" * len(asked),
    ]
    for row in dict.fromkeys(point.row for point in found):
        here = {point.pairs: point for point in found if point.row == row}
        cells = [_cell(here.get(pairs)) for pairs in asked]
        task, model, dim, length, state, steps, _ = row
        known = f"{model} | {dim} | {TRAINED[task]} | {steps:,} | {length:,} | {state:,}"
        lines.append(f"| {known} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(found: Sequence[Point], file: Path) -> None:
    """Accuracy against pairs, a line per model and width; and against the size of the state."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    models, dims = sorted({p.model for p in found}), sorted({p.dim for p in found})
    several = len({(point.task, point.length, point.steps) for point in found}) > 1
    asked = sorted({point.pairs for point in found})
    for row in dict.fromkeys(point.row for point in found):
        here = [point for point in found if point.row == row]
        values, bars = [p.accuracy for p in here], [p.error for p in here]
        task, model, dim, length, state, steps, _ = row
        colour, line = f"C{models.index(model)}", ("-", "--", ":", "-.")[dims.index(dim) % 4]
        name = f"{model}, D {dim}"
        if several:
            name = f"{name}, length {length:,}, {steps:,} steps, {TRAINED[task]}"
        pairs, style = [p.pairs for p in here], {"marker": "o", "capsize": 2, "label": name}
        axes[0].errorbar(pairs, values, yerr=bars, color=colour, linestyle=line, **style)
        axes[1].plot(state, mean(values), marker="o", color=colour)
        above = 6 if models.index(model) % 2 else -14  # points: models may lie on each other
        axes[1].annotate(
            str(dim),
            (state, mean(values)),
            xytext=(0, above),
            textcoords="offset points",
            ha="center",
            color=colour,
            fontsize=8,
        )
    axes[0].set_xscale("log", base=2)
    axes[0].set_xticks(asked, map(str, asked))
    axes[0].set(xlabel="pairs", ylabel="accuracy on MQAR (%)")
    axes[1].set_xscale("log", base=2)
    axes[1].set(
        xlabel="state (numbers per block); beside it the width D",
        ylabel="its mean over the pairs (%)",
    )
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    if not several:
        one = found[0]
        trained = f"trained on its numbers of pairs {TRAINED[one.task]}, {one.steps:,} steps"
        figure.suptitle(f"length {one.length:,}, {trained}")
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(file, dpi=150)


def main(words: Sequence[str]) -> None:
    """Read the records below some folders, print the table, write it and the picture.

    Raises:
        ConfigError: a folder has an empty path.
        RunError: there is no run to show.
    """
    outs = [word.removeprefix("out=") for word in words if word.startswith("out=")]
    folders = [given_folder(word) for word in words if not word.startswith("out=")]
    if {"-h", "--help"} & {*words} or not folders or len(outs) > 1:
        Screen().say(f"usage: chela recall FOLDER [FOLDER ...] [out=FOLDER]\n\n{__doc__}")
        return
    target = given_folder(outs[0], "out=") if outs else folders[0] / "report"
    found = points(collect(folders).runs, Screen(stderr=True).tell)
    target.mkdir(parents=True, exist_ok=True)
    table = as_markdown(found)
    write_text(target / "recall.md", table)
    draw(found, target / "recall.png")
    Screen(160).say(f"{table}\n{target / 'recall.md'}\n{target / 'recall.png'}")


def _cell(point: Point | None) -> str:
    if point is None:
        return "—"
    return f"{point.accuracy:.2f} ± {point.error:.2f} [{point.seeds}]"
