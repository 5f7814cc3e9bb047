"""Is everything in order for a run? `chela doctor task=listops model=chela`."""

import sys
from collections.abc import Sequence

from omegaconf import DictConfig
from rich.text import Text

from chela.launch.cli import run_hydra
from tasks.screen import Screen


def doctor(composed: DictConfig) -> None:
    """Print a line per finding, OK or what to do; the exit status is 1 if something is wrong."""
    from chela.config.schema import parse
    from chela.doctor import diagnose

    console, wrong = Screen(), 0
    for finding in diagnose(parse(composed)):
        mark = Text("OK   ", "green") if finding.fine else Text("WRONG", "red")
        console.say(mark.append(f" {finding.subject:<25} {finding.text}", "default"))
        wrong += not finding.fine
    if wrong:
        sys.exit(1)


def main(words: Sequence[str]) -> None:
    """Run what the command line says."""
    run_hydra(doctor, words)
