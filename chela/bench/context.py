"""How much of the past a trained model uses: its test again, with less of each sample.

    chela context run=outputs/<run>/seed0
    chela context run=outputs/<run>/seed0 'keep=[16,64,256]' samples=5000 device=cuda

Only the last `keep` tokens of a sample stay as they are. Those before them are

    cut        left out
    shuffled   put into a random order: still there, but it is not told where

If both lines are flat, the task, or the model, does without what is far away. The table and the
picture are written beside the run's record (`context.csv`, `context.png`), or into out=FOLDER.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from matplotlib.figure import Figure
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor

from chela.config.checking import checked, values_of
from chela.disk import given_folder
from chela.errors import ConfigError, RunError
from chela.hub import LoadedRun, device_for, load
from chela.objectives import objective_of
from chela.objectives.base import Means, Metric
from chela.records.files import write_text
from tasks.screen import Screen
from tasks.storage.rows import NOTHING

View = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


@checked_dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class ContextConfig:
    """The keys of the command."""

    run: str
    keep: list[PositiveInt] | None = None  # null: powers of two up to the longest sample
    # tokens at the end whose answers count, where each token has one; null: the least of keep
    scored: PositiveInt | None = None
    samples: PositiveInt = 1000  # of the test split, from its first on
    batch: PositiveInt = 50
    seed: NonNegativeInt = 0  # of the random order
    device: Literal["auto", "cpu", "cuda"] = "auto"
    out: str | None = None


@dataclass(frozen=True)
class Point:
    """What a test gives with the last ``keep`` tokens alone as they are."""

    view: str  # cut or shuffled
    keep: int
    value: float
    error: float  # its standard error
    n: int  # answers


def cut(values: Tensor, lengths: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The last ``keep`` tokens of each sequence.

    Args:
        values: (N, L) or (N, L, C).
        lengths: (N,) true lengths.
        keep: tokens that stay.

    Returns:
        Which tokens of the sequences, (N, min(keep, L)), and how many of them are real, (N,).
    """
    kept = lengths.clamp(max=keep)
    places = torch.arange(min(keep, values.shape[1]), device=values.device)
    return ((lengths - kept)[:, None] + places).clamp(max=values.shape[1] - 1), kept


def shuffled(values: Tensor, lengths: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """All tokens, those before the last ``keep`` in a random order; see ``cut``."""
    places = torch.arange(values.shape[1], device=values.device)
    far = (lengths - keep)[:, None]  # (N, 1)
    draws = torch.rand(len(values), values.shape[1]).to(values.device)  # the same on each device
    return torch.where(places < far, draws, 1.0 + places).argsort(dim=1), lengths


VIEWS: dict[str, View] = {"cut": cut, "shuffled": shuffled}


def measure(
    run: LoadedRun, keep: Sequence[int], samples: int, batch: int, scored: int, seed: int = 0
) -> tuple[Metric, list[Point]]:
    """The run's own metric with less and less of each sample.

    Args:
        run: finished, with its data.
        keep: tokens that stay as they are, each a test of its own.
        samples: of the test split.
        batch: samples at once.
        scored: tokens at the end whose answers count, where each token has one.
        seed: of the random order.

    Returns:
        The metric, and a point for each view and number of tokens.

    Raises:
        RunError: nothing is asked in the tokens that count.
    """
    objective = objective_of(run.task.spec, run.task.metric)
    device = next(run.model.parameters()).device
    torch.manual_seed(seed)
    sums = {(view, k): torch.zeros(4, dtype=torch.float64) for view in VIEWS for k in keep}
    left = samples
    for part in run.task.batches("test", batch):
        take = min(left, len(part.values))
        values, lengths, targets = (
            each[:take].to(device) for each in (part.values, part.lengths, part.targets)
        )
        shape = lengths.shape  # (B,), of pairs (B, 2)
        values, lengths = values.flatten(0, len(shape) - 1), lengths.flatten()
        if targets.ndim == 2:
            places = torch.arange(values.shape[1], device=device)
            targets = targets.where(places >= (lengths - scored)[:, None], NOTHING)
        for view, k in sums:
            places, kept = VIEWS[view](values, lengths, k)
            seen, asked = _taken(values, places), targets
            if targets.ndim == 2:
                asked = targets.gather(1, places)
                asked[torch.arange(places.shape[1], device=device) >= kept[:, None]] = NOTHING
            with torch.no_grad():
                answers = objective.ask(
                    run.model, seen.unflatten(0, shape), kept.unflatten(0, shape), asked
                )
            sums[view, k] += objective.evaluate(*answers).sum(0).cpu()
        left -= take
        if not left:
            break
    if not all(each[2] for each in sums.values()):
        raise RunError(f"nothing is asked in the last {scored} tokens.\n  try: scored=<more>")
    points = []
    for (view, k), each in sums.items():
        means, metric = Means.of(each.tolist()), objective.primary
        points.append(Point(view, k, metric.value(means), metric.error(means), int(means.n)))
    return objective.primary, points


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """The tokens at places (N, K) of values (N, L) or (N, L, C)."""
    if values.ndim == 2:
        return values.gather(1, places)
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def draw(metric: Metric, points: Sequence[Point], title: str, file: Path) -> None:
    """The metric against the tokens that stay, a line for each view."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    factor, unit = (100, "%") if metric.unit == "fraction" else (1, metric.unit)
    for view in VIEWS:
        here = [point for point in points if point.view == view]
        axes.errorbar(
            [point.keep for point in here],
            [factor * point.value for point in here],
            yerr=[factor * point.error for point in here],
            marker="o",
            capsize=2,
            label=f"what is further back is {view}",
        )
    axes.set_xscale("log", base=2)
    axes.set(xlabel="last tokens that stay as they are", ylabel=f"{metric.name} ({unit})")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def powers_to(longest: int) -> list[int]:
    """Powers of two from 4 on, and then the longest."""
    return [*(4 << i for i in range(longest.bit_length()) if 4 << i < longest), longest]


def main(words: Sequence[str]) -> None:
    """Measure the run that the command line names; print and write the table, draw the picture.

    Raises:
        ConfigError: an unknown key, or a value that cannot be.
        RunError: there is no such run, or no GPU that is asked for; see ``measure``.
    """
    screen = Screen(100)
    if not words or {"-h", "--help"} & {*words}:
        screen.say(f"{__doc__}")
        return
    values = values_of(words, ("run", "out"), "run={}".format)
    given = checked(ContextConfig, values, path="")
    run = load(given.run, device_for(given.device))
    longest = run.task.spec.max_length
    keep = sorted(given.keep or powers_to(longest))
    if keep[-1] > longest:
        raise ConfigError(f"keep={keep}: a sample has {longest} tokens at most.\n  try: up to that")
    scored = given.scored or keep[0]
    target = given_folder(given.run if given.out is None else given.out, "out=")
    metric, points = measure(run, keep, given.samples, given.batch, scored, given.seed)
    target.mkdir(parents=True, exist_ok=True)
    rows = [f"{p.view},{p.keep},{p.value:.6g},{p.error:.3g},{p.n}" for p in points]
    head = f"what is further back,tokens that stay,{metric.name},standard error,answers"
    write_text(target / "context.csv", "\n".join([head, *rows, ""]))
    draw(metric, points, f"{run.config.run_id}, test", target / "context.png")
    for point in points:
        value = f"{metric.name} {point.value:.4f} ± {point.error:.4f} (n = {point.n:,})"
        screen.say(f"last {point.keep:>6,} tokens, before them {point.view:<8}  {value}")
    screen.say(f"{target / 'context.csv'}\n{target / 'context.png'}")
