"""Look at a task's data: `chela show task=pathfinder data_dir=...`."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from chela.launch.cli import run_hydra
from tasks.screen import Screen


def show(composed: DictConfig) -> None:
    """Prepare the data if need be, and draw samples with labels, lengths and classes."""
    from chela.config.schema import parse
    from chela.training.build import build_task
    from tasks.show.pictures import draw_sheet

    config = parse(composed)
    task = build_task(config)
    task.prepare_data()
    task.setup()
    file = Path(config.output_dir) / "pictures" / f"{task.name}-{task.folder.name}.png"
    draw_sheet(task, file)
    Screen().say(f"{task.meta.describe()}\n{file}")


def main(words: Sequence[str]) -> None:
    """Run what the command line says."""
    run_hydra(show, words)
