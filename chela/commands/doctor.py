"""Is everything in order for a run? `chela doctor task=listops model=chela`."""

import sys
from collections.abc import Sequence
from functools import partial

from omegaconf import DictConfig
from rich.text import Text

from chela.launch.cli import run_hydra
from tasks.screen import Screen

OVERFIT = "--overfit"
USAGE = f"""\
usage: chela doctor [{OVERFIT}] [group=choice] [key=value] ...

Is everything in order for the run that chela train would start with the same words?

  {OVERFIT}   also let the model learn four samples by heart, which takes up to a minute"""
INDENT = 32  # of what was found, behind the subject and the mark
FOREVER = 10**6  # characters: a file's lines need not end


def doctor(composed: DictConfig, overfits: bool) -> None:
    """Print a line per check: its name when it begins, then OK or WRONG and what was found.

    The exit status is 1 if something is wrong.

    Args:
        composed: the configuration.
        overfits: whether the model is to learn a few samples by heart, too.
    """
    from chela.config.schema import parse
    from chela.doctor import diagnose

    console, wrong = Screen(FOREVER), 0

    def begins(subject: str) -> None:
        console.print(f"{subject:<{INDENT - 6}}", end="")

    for finding in diagnose(parse(composed), begins, overfits):
        mark = ("OK    ", "green") if finding.fine else ("WRONG ", "red")
        found = Text(finding.text).wrap(console, max(20, console.width - INDENT))
        console.say(Text.assemble(mark, f"\n{'':{INDENT}}".join(map(str, found))))
        wrong += not finding.fine
    if wrong:
        sys.exit(1)
    if not overfits:
        console.say(f"chela doctor ... {OVERFIT} also tells whether the model can learn")


def main(words: Sequence[str]) -> None:
    """Run what the command line says."""
    if {"-h", "--help"} & {*words}:
        Screen().say(USAGE)
        return
    overrides = [each for each in words if each != OVERFIT]
    run_hydra(partial(doctor, overfits=OVERFIT in words), overrides)
