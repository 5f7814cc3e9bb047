"""Look at a task's data: `python scripts/show.py task=pathfinder data_dir=...`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from chela.launch.cli import run_hydra
from tasks.screen import Screen


@hydra.main(version_base="1.3", config_path="../configs", config_name="config")
def main(composed: DictConfig) -> None:
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


if __name__ == "__main__":
    run_hydra(main)
