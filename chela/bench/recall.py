"""Who recalls how much: accuracy on MQAR against the pairs asked and the size of the state.

    chela recall outputs                   recall.md and recall.png, of all finished runs of MQAR
    chela recall outputs out=FOLDER

The state is what a model keeps of a whole sample to go on behind it (``chela.mixers.stepping``), in
numbers per block: matrices of attention, states of a state space, the latest inputs of a kernel of
free form, keys and values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils._pytree import tree_leaves

from chela.errors import RunError
from chela.generation import check
from chela.hub import built
from chela.model.stepping import prefill
from chela.records.collect import Run, collect
from chela.records.files import write_text
from tasks.screen import Screen

TASK = "mqar"


@dataclass(frozen=True)
class Point:
    """Runs of one model on one number of pairs, which differ in the seed alone."""

    model: str
    dim: int
    length: int
    pairs: int
    state: int  # numbers per block
    accuracy: float  # %, the mean over seeds
    error: float  # its standard error, of the test and over the seeds
    seeds: int

    @property
    def row(self) -> tuple[str, int, int, int]:
        """What all its numbers of pairs have in common."""
        return self.model, self.dim, self.length, self.state


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


def points(runs: Sequence[Run]) -> list[Point]:
    """The finished runs of MQAR, seeds together.

    Raises:
        RunError: there is none.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.task == TASK and run.value is not None and run.metric == "accuracy":
            groups.setdefault(run.identity, []).append(run)
    if not groups:
        raise RunError(f"there is no finished run of task={TASK}.\n  try: +sweep=recall")
    found = []
    for alike in groups.values():
        known = alike[0].values(["model.dim", "task.pairs"])
        values = [run.value or 0.0 for run in alike]
        over_seeds = torch.tensor(values).std().item() if len(values) > 1 else 0.0
        tested = math.hypot(*(run.error_of_value for run in alike)) / len(values)
        found.append(
            Point(
                alike[0].model,
                known["model.dim"],
                alike[0].longest,
                known["task.pairs"],
                state_numbers(alike[0]),
                mean(values),
                math.hypot(over_seeds / math.sqrt(len(values)), tested),
                len(values),
            )
        )
    return sorted(found, key=lambda point: (*point.row, point.pairs))


def as_markdown(found: Sequence[Point]) -> str:
    """A row per model and width, a column per number of pairs."""
    asked = sorted({point.pairs for point in found})
    lines = [
        "Accuracy on MQAR in % ± standard error; in brackets the seeds.",
        "",
        f"| model | D | length | state, numbers per block | {' | '.join(map(str, asked))} pairs |",
        "|---|---|---|---|" + "---|" * len(asked),
    ]
    for row in dict.fromkeys(point.row for point in found):
        here = {point.pairs: point for point in found if point.row == row}
        cells = [_cell(here.get(pairs)) for pairs in asked]
        model, dim, length, state = row
        lines.append(f"| {model} | {dim} | {length:,} | {state:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(found: Sequence[Point], file: Path) -> None:
    """Accuracy against pairs, a line per model and width; and against the size of the state."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for row in dict.fromkeys(point.row for point in found):
        here = [point for point in found if point.row == row]
        pairs, values = [p.pairs for p in here], [p.accuracy for p in here]
        name = f"{row[0]}, D {row[1]}, length {row[2]:,}"
        bars = [point.error for point in here]
        axes[0].errorbar(pairs, values, yerr=bars, marker="o", capsize=2, label=name)
        axes[1].plot(row[3], mean(values), marker="o")
        axes[1].annotate(f"{row[0]} {row[1]}", (row[3], mean(values)), fontsize=8)
    axes[0].set_xscale("log", base=2)
    axes[0].set(xlabel="pairs", ylabel="accuracy on MQAR (%)")
    axes[1].set_xscale("log")
    axes[1].set(xlabel="state (numbers per block)", ylabel="its mean over the pairs (%)")
    axes[0].legend(fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(file, dpi=150)


def main(words: Sequence[str]) -> None:
    """Read the records below some folders, print the table, write it and the picture.

    Raises:
        RunError: there is no run to show.
    """
    outs = [word.removeprefix("out=") for word in words if word.startswith("out=")]
    folders = [Path(word) for word in words if not word.startswith("out=")]
    if {"-h", "--help"} & {*words} or not folders or len(outs) > 1:
        Screen().say(f"usage: chela recall FOLDER [FOLDER ...] [out=FOLDER]\n\n{__doc__}")
        return
    found = points(collect(folders).runs)
    target = Path(outs[0]) if outs else folders[0] / "report"
    target.mkdir(parents=True, exist_ok=True)
    table = as_markdown(found)
    write_text(target / "recall.md", table)
    draw(found, target / "recall.png")
    Screen(160).say(f"{table}\n{target / 'recall.md'}\n{target / 'recall.png'}")


def _cell(point: Point | None) -> str:
    if point is None:
        return "—"
    return f"{point.accuracy:.2f} ± {point.error:.2f} [{point.seeds}]"
