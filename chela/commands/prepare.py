"""Prepare data and stop: `chela prepare task=<name|all> data_dir=...`.

With `task=all` a key of one task is set by the task's name: `image.stand_in=cifar10-jpeg`.
"""

import subprocess
import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from chela.launch.cli import run_hydra
from tasks.screen import Screen
from tasks.spec import LRA


def prepare(composed: DictConfig) -> None:
    """Prepare the data that a run would prepare for the same arguments, and describe them."""
    from chela.config.schema import parse
    from chela.training.build import build_task
    from tasks.show.table import table

    task = build_task(parse(composed))
    task.prepare_data()
    task.setup()
    Screen().print(table(task))


def arguments_of(task: str, arguments: Sequence[str]) -> list[str]:
    """What `task=all` and the other arguments mean for one task.

    Args:
        task: one of ``LRA``.
        arguments: of the command line; ``<task>.key=value`` counts for that task alone.
    """
    found = []
    for argument in arguments:
        owner, dot, rest = argument.lstrip("+").partition(".")
        if dot and owner in LRA:
            if owner == task:
                found.append(f"task.{rest}")
        else:
            found.append(f"task={task}" if argument == "task=all" else argument)
    return found


def main(words: Sequence[str]) -> None:
    """Prepare what the command line says; of all tasks one after the other, whatever fails."""
    if "task=all" not in words:
        run_hydra(prepare, words)
        return
    command = [sys.executable, "-m", "chela", "prepare"]
    failed = [
        task for task in LRA if subprocess.run([*command, *arguments_of(task, words)]).returncode
    ]
    if failed:
        sys.exit(f"not prepared: {', '.join(failed)}; the reasons stand above")
