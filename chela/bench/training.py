"""Training and evaluation speed of a model on a task, beside the plain form of the same model.

    chela bench-training task=listops model=chela        real batches of the task
    chela bench-training task=image trainer.batch_size=256 model.dim=128   any key
    chela bench-training --steps 200 task=listops        more of them
    chela bench-training --profile kernels.txt task=image   every kernel of a step
    chela bench-training --lengths 1024,16384 --plot speed.png   random tokens

The loop is that of train.py without its files; the plain form is kernels=torch under torch.compile
without a CUDA graph. Tokens are positions, padding among them; `true` says how many are none.
The least traffic is that of a block whose every activation is moved as seldom as kernels can; on a
CPU PyTorch's operations take the place of kernels.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure

from chela.bench.measure import copy_bandwidth
from chela.bench.throughput import Speed, measure_at_length, measure_on_task
from chela.bench.words import count, counts, machine, parser_of
from chela.config.schema import RunConfig, compose_run
from chela.config.settings import Step
from chela.errors import RunError
from chela.training.distributed import is_leader
from chela.training.engine import resolve

TOP = 40  # kernels that are printed: the others are short
HEADER = (
    f"{'model':14} {'form':22} {'shape':12} {'loop':>8} {'step':>8} {'eval':>8} "
    f"{'true':>5} {'peak':>9} {'start':>7}"
)


def plain(config: RunConfig, device: torch.device) -> RunConfig:
    """The same run without anything of ours that makes it fast."""
    step: Step = "compile" if device.type == "cuda" else "eager"
    return replace(config, kernels="torch", trainer=replace(config.trainer, step=step))


def row(config: RunConfig, shape: str, speed: Speed) -> str:
    """One line of the table."""
    form = f"{config.kernels}, {resolve(config).step}"
    rates = " ".join(f"{x / 1e6:7.2f}M" for x in (speed.loop, speed.step, speed.evaluation))
    return (
        f"{config.model.name:14} {form:22} {shape:12} {rates} {speed.true_share:5.0%} "
        f"{speed.peak_bytes / 2**30:5.2f}GiB {speed.compile_seconds:6.1f}s"
    )


@dataclass(frozen=True)
class Loop:
    """What a line of the table says of training in the loop."""

    model: str
    kernels: str  # "auto": ours; "torch": the plain form
    shape: str  # a task, or "50x1024"
    rate: float  # tokens per second


def loops_in(log: str) -> list[Loop]:
    """The lines that ``row`` made, among whatever else was printed."""
    found = re.findall(r"^(\S+) +(auto|torch), \w+ +(\S+) +([\d.]+)M ", log, re.MULTILINE)
    return [Loop(model, kernels, shape, float(x) * 1e6) for model, kernels, shape, x in found]


def details(speed: Speed, bandwidth: float) -> str:
    """Where a step's time goes, its launches, and how far it is from the traffic that it needs.

    Args:
        speed: with the profile of a step.
        bandwidth: of memory, in bytes per second.
    """
    profile = speed.profile
    shares = (
        f"{name} {seconds / profile.seconds:.0%}" for name, seconds in profile.parts().items()
    )
    stages = (f"{name} {launches:,}" for name, launches in profile.stages.items())
    lines = [
        f"  a step's {profile.seconds * 1e3:.2f} ms: {', '.join(shares)}",
        f"  {profile.launches:,} launches: {', '.join(stages)}",
    ]
    if floor := speed.floor_bytes / bandwidth:
        distance = profile.seconds / floor
        lines.append(f"  {distance:.1f} x the {floor * 1e3:.2f} ms of the least memory traffic")
    return "\n".join(lines)


def draw(speeds: dict[str, dict[int, float]], file: Path, title: str) -> None:
    """Tokens per second against length, a line for each form."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for form, found in speeds.items():
        axes.plot(list(found), [rate / 1e6 for rate in found.values()], marker="o", label=form)
    axes.set_xscale("log", base=2)
    axes.set(title=title, xlabel="length (tokens)", ylabel="training (million tokens/s)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=150)


def main(arguments: Sequence[str]) -> None:
    """Measure what the command line asks for and print a line each."""
    parser = parser_of("bench-training", __doc__)
    parser.add_argument("--steps", type=count, default=50, help="that are timed")
    parser.add_argument(
        "--lengths",
        type=counts,
        default=[],
        help="random tokens of these lengths instead of a task",
    )
    parser.add_argument("--tokens", type=count, default=2**18, help="of a random batch")
    parser.add_argument("--plot", type=Path, help="draw the speed against --lengths")
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="write the table of kernels, and print its top"
    )
    parser.add_argument("--no-plain", action="store_true", help="not the plain form")
    options, overrides = parser.parse_known_args(arguments)
    if options.plot and not options.lengths:
        raise RunError("--plot draws speeds against lengths.\n  try: --lengths 1024,4096")
    asked = compose_run(overrides)
    engine = resolve(asked)
    forms = [asked] if options.no_plain else [asked, plain(asked, engine.device)]
    title = f"{asked.model.name}, {asked.trainer.processes} x {machine(engine.device)}"
    say = partial(print, flush=True) if is_leader() else lambda *_: None
    say(f"{title}, {engine.precision}\n{HEADER}")
    speeds: dict[str, dict[int, float]] = {}
    tables: list[str] = []
    bandwidth = copy_bandwidth(engine.device) if is_leader() else 0.0
    for config in forms:
        for length in options.lengths or [0]:
            try:
                if length:
                    speed = measure_at_length(config, length, options.tokens, options.steps)
                else:
                    speed = measure_on_task(config, options.steps)
            except torch.OutOfMemoryError:
                say(f"{config.model.name:14} length {length:,} does not fit into the memory")
                continue
            shape = (
                f"{max(1, options.tokens // length)}x{length}"
                if length
                else config.task.config.name
            )
            if not is_leader():
                continue
            say(row(config, shape, speed))
            say(details(speed, bandwidth))
            if options.profile:
                say(speed.profile.table(TOP))
                tables.append(f"{row(config, shape, speed)}\n{speed.profile.table()}\n")
            speeds.setdefault(f"kernels={config.kernels}", {})[length] = speed.step
    if options.profile and is_leader():
        options.profile.write_text("\n".join(tables))
        print(f"written: {options.profile}")
    if options.plot and is_leader():
        draw(speeds, options.plot, title)
        print(f"drawn: {options.plot}")
