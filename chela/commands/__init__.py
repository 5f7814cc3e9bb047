"""The commands: ``chela NAME ...``; of a checkout also ``train.py``, ``scripts/NAME.py``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from chela.disk import disk_error, explain_disk
from chela.errors import suggestion
from tasks.errors import UserError
from tasks.screen import Screen, settle_streams

# A module whose main takes the words of the command line, and what it does.
COMMANDS = {
    "train": ("chela.commands.train", "one run, or with -m a sweep of them"),
    "status": ("chela.commands.status", "what the runs and sweeps below a folder are doing"),
    "report": ("chela.commands.report", "the table of the runs below some folders"),
    "prepare": ("chela.commands.prepare", "prepare a task's data, and stop"),
    "show": ("chela.commands.show", "draw samples of a task"),
    "generate": ("chela.commands.generate", "let a run's language model go on from a prompt"),
    "doctor": ("chela.commands.doctor", "is everything in order for a run?"),
    "test-model": ("chela.commands.check_model", "does a mixer keep what all mixers keep?"),
    "params": ("chela.bench.params", "parameters and FLOPs of every model on a task"),
    "search": ("chela.commands.search", "search a recipe with Optuna"),
    "upload": ("chela.commands.upload", "send to W&B what it does not have of local runs"),
    "bench-kernels": ("chela.bench.kernels", "error and speed of every kernel"),
    "bench-training": ("chela.bench.training", "speed of a model on a task"),
    "bench-sequence": ("chela.bench.sequence", "speed of sequences that several devices hold"),
    "bench-generation": ("chela.bench.generation", "speed of generation behind prompts that grow"),
    "costs": ("chela.bench.costs", "GPU hours of the recipes, as measured"),
    "recall": ("chela.bench.recall", "accuracy on MQAR against pairs and size of the state"),
    "context": ("chela.bench.context", "the test of a run with less of each sample's past"),
    "efficiency": ("chela.bench.efficiency", "speed and memory of every model at growing lengths"),
}
LIGHT = ("report", "status")  # read files alone, and start at once: without Hydra and torch
PREPARING = ("search", "recall", "bench-training")  # data, as what Hydra composes does


def main() -> None:
    """``chela NAME ...``."""
    name, *words = [*sys.argv[1:], "--help"]
    if name in COMMANDS:
        start(name, words[:-1])
    elif name == "--version":
        import chela

        Screen().say(f"chela {chela.__version__}")
    elif name in ("-h", "--help"):
        wide = max(map(len, COMMANDS))
        lines = [f"  chela {each:<{wide}} {what}" for each, (_, what) in COMMANDS.items()]
        Screen().say("\n".join(["usage: chela COMMAND ...; each has its own --help", "", *lines]))
    else:
        Screen(stderr=True).tell(
            f"error: there is no command '{name}'. {suggestion(name, COMMANDS)}"
        )
        sys.exit(1)


def start(name: str, words: Sequence[str]) -> None:
    """Run a command; its errors are a message, and status 1.

    Args:
        name: one of ``COMMANDS``.
        words: of the command line, behind the name.
    """
    module, _ = COMMANDS[name]
    if name not in LIGHT:
        from chela.launch.cli import plain_errors  # here, for it imports Hydra

        with plain_errors(goes_on=name in PREPARING):
            import_module(module).main(words)
        return
    settle_streams()
    try:
        import_module(module).main(words)
    except Exception as error:
        plain = isinstance(error, UserError)
        disk = None if plain else disk_error(error)
        if disk is None and not plain:
            raise
        Screen(stderr=True).tell(f"error: {explain_disk(disk) if disk else error}")
        sys.exit(1)
    except KeyboardInterrupt:  # the way out of `status --watch`
        sys.exit(130)
