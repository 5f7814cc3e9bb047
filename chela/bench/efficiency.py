"""What models cost at growing lengths, beside one of them: the table, and two pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from chela.bench.lines import draw_lines
from chela.records.format import human, size

MODEL_OF_REFERENCE = "transformer"  # as in Mega's table (Ma et al. 2023, table 4)


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
        known = [cost for cost in here if cost.model == MODEL_OF_REFERENCE]
        base = known[0] if known else Cost("", length, None, None, None)
        lines += [
            "",
            f"**{length:,} tokens**",
            "",
            "| model | training, tokens/s | inference, tokens/s | peak memory |",
            "|---|---|---|---|",
        ]
        for cost in here:
            cells = [
                _rate(cost.training, base.training),
                _rate(cost.inference, base.inference),
                _memory(cost.peak_bytes, base.peak_bytes),
            ]
            lines.append(f"| {cost.model} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw_lengths(costs: Sequence[Cost], file: Path, title: str) -> None:
    """Training speed and memory against length, a line per model."""
    points = {
        model: [
            (cost.length, cost.training / 1e6, (cost.peak_bytes or 0) / 2**30)
            for cost in costs
            if cost.model == model and cost.training
        ]
        for model in dict.fromkeys(cost.model for cost in costs)
    }
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


def _rate(value: float | None, base: float | None) -> str:
    if value is None:
        return "does not fit"
    return human(value) + (f" ({value / base:.2f}x)" if base else "")


def _memory(value: int | None, base: int | None) -> str:
    if value is None:
        return "does not fit"
    if not value:
        return "not known"
    return size(value) + (f" ({value / base:.2f}x)" if base else "")
