"""Prepare data and stop: `python scripts/prepare.py task=<name|all> data_dir=...`.

With `task=all` a key of one task is set by the task's name: `image.stand_in=cifar10-jpeg`.
"""

import subprocess
import sys
from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from chela.launch.cli import plain_errors, run_hydra
from tasks.screen import Screen
from tasks.spec import LRA


@hydra.main(version_base="1.3", config_path="../configs", config_name="config")
def main(composed: DictConfig) -> None:
    """Prepare the data that `train.py` would prepare for the same arguments, and describe them."""
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


def prepare_all(arguments: Sequence[str]) -> None:
    """Prepare one task after the other, whatever becomes of the others; say which failed."""
    failed = [
        task
        for task in LRA
        if subprocess.run([sys.executable, __file__, *arguments_of(task, arguments)]).returncode
    ]
    if failed:
        sys.exit(f"not prepared: {', '.join(failed)}; the reasons stand above")


if __name__ == "__main__":
    if "task=all" in sys.argv:
        with plain_errors():
            prepare_all(sys.argv[1:])
    else:
        run_hydra(main)
