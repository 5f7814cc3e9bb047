"""Prepare a task's data and stop: `python scripts/prepare.py task=listops data_dir=...`."""

import hydra
from omegaconf import DictConfig

from chela.cli import plain_errors


@hydra.main(version_base="1.3", config_path="../configs", config_name="config")
def main(composed: DictConfig) -> None:
    """Prepare the data that `train.py` would prepare for the same arguments, and describe them."""
    from chela.config import parse
    from chela.training.build import build_task

    task = build_task(parse(composed))
    task.prepare_data()
    task.setup()
    print(f"{task.meta.describe()}\nin {task.folder}")


if __name__ == "__main__":
    with plain_errors():
        main()
