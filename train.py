"""Train one model on one Long Range Arena task: `python train.py --help`."""

import hydra
from omegaconf import DictConfig

from chela.launch.cli import run_hydra


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def main(composed: DictConfig) -> float:
    """One run; its best validation accuracy is the sweep's objective."""
    from chela.training.run import run  # here, so that --help need not wait for torch

    return run(composed)


if __name__ == "__main__":
    run_hydra(
        main, patience=1.0, sweeps=True
    )  # a screen that stands still does not stop a training
