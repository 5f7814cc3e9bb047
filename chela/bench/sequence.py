"""A training step whose sequences several devices hold together, beside one device's.

    chela bench-sequence                                   two GPUs, 262,144 and 1,048,576 tokens
    chela bench-sequence --lengths 65536,131072 --devices 4
    chela bench-sequence model.dim=256 trainer.precision=float32     any key of train.py

One sequence of random tokens, as a training step computes it: each device holds a share. Of every
length one device comes first, where it fits. `sent` is what all devices together hand to
collectives for the sequences' sake in a step, forward and backward; `least` what they would have to
send however they did it. Gradients are added up beside.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from chela.bench.throughput import Speed, measure_at_length, random_tokens
from chela.bench.words import count, counts, machine, parser_of
from chela.config.schema import RunConfig, compose_run
from chela.training.build import build_model, refuse_unsplit
from chela.training.distributed import is_leader, is_started_outside
from chela.training.engine import resolve

MODEL = ("task=text", "model=chela", "~experiment/lra")  # of the sizes that the model's file has
HEADER = (
    f"{'length':>9} {'devices':>7} {'step':>10} {'tokens/s':>9} {'faster':>6} "
    f"{'peak/device':>11} {'of one':>6} {'sent':>10} {'least':>10} {'ratio':>5}"
)


def row(length: int, devices: int, speed: Speed, one: Speed | None) -> str:
    """A line of the table.

    Args:
        length: of the sequence.
        devices: that hold it.
        speed: of them together.
        one: of one device; None: not measured, it may not have fitted.
    """
    faster, share = ("", "")
    if one is not None and devices > 1:
        faster = f"{speed.step / one.step:.2f}x"
        share = f"{speed.peak_bytes / one.peak_bytes:.0%}" if one.peak_bytes else ""
    sent, least, ratio = "", "", ""
    if speed.least_bytes:
        sent, least = (f"{each / 1e6:.2f} MB" for each in (speed.sent_bytes, speed.least_bytes))
        ratio = f"{speed.sent_bytes / speed.least_bytes:.2f}"
    return (
        f"{length:9,} {devices:7} {length / speed.step * 1e3:7.1f} ms {speed.step / 1e6:8.2f}M "
        f"{faster:>6} {speed.peak_bytes / 2**30:7.2f} GiB {share:>6} "
        f"{sent:>10} {least:>10} {ratio:>5}"
    ).rstrip()


def main(arguments: Sequence[str]) -> None:
    """Measure what the command line asks for and print a line each."""
    parser = parser_of("bench-sequence", __doc__)
    parser.add_argument("--lengths", type=counts, default="262144,1048576", help="in tokens")
    parser.add_argument("--devices", type=count, default=2, help="that hold a sequence together")
    parser.add_argument("--steps", type=count, default=10, help="that are timed")
    parser.add_argument("--profile", action="store_true", help="say where a step's time goes, too")
    options, overrides = parser.parse_known_args(arguments)
    lengths = options.lengths
    asked = compose_run([*MODEL, *overrides])
    together = {"devices": options.devices, "sequence_devices": options.devices, "num_nodes": 1}
    several = replace(asked, trainer=replace(asked.trainer, **together))
    engine = resolve(several)
    if options.devices > 1:  # told before anything is measured
        with torch.device("meta"):
            model = build_model(asked.model, random_tokens(max(lengths)))
        refuse_unsplit(model, asked.model.name, options.devices)
    say = partial(print, flush=True) if is_leader() else lambda *_: None
    say(f"{asked.model.name}, {engine.place} ({machine(engine.device)})\n{HEADER}")
    # the others are there only once a run of several has begun, unless something else started them
    ones: dict[int, Speed] = {}
    if options.devices > 1 and is_leader() and not is_started_outside():
        alone = replace(several, trainer=replace(several.trainer, devices=1, sequence_devices=1))
        for length in lengths:
            measured = _measured(alone, length, options.steps)
            if measured is None:
                say(f"{length:9,} {1:7} does not fit into the memory")
                continue
            ones[length] = measured
            say(row(length, 1, measured, None))
            _details(measured, options.profile)
    for length in lengths:
        measured = _measured(several, length, options.steps)
        if not is_leader():
            continue
        if measured is None:
            say(f"{length:9,} {options.devices:7} does not fit into the memory")
            continue
        say(row(length, options.devices, measured, ones.get(length)))
        _details(measured, options.profile)


def _measured(config: RunConfig, length: int, steps: int) -> Speed | None:
    """Of one sequence; None: it does not fit."""
    try:
        return measure_at_length(config, length, length, steps)
    except torch.OutOfMemoryError:
        return None


def _details(speed: Speed, wanted: bool) -> None:
    if wanted:
        shares = speed.profile.parts().items()
        print("  " + ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in shares))
