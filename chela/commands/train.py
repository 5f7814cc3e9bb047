"""Train one model on one Long Range Arena task: `chela train --help`."""

from collections.abc import Sequence

from omegaconf import DictConfig

from chela.launch.cli import run_hydra


def train(composed: DictConfig) -> float:
    """One run; what selects, of its best validation, is the sweep's objective."""
    from chela.training.run import run  # here, so that --help need not wait for torch

    return run(composed)


def main(words: Sequence[str]) -> None:
    """Run what the command line says."""
    # a screen that stands still does not stop a training
    run_hydra(train, words, patience=1.0, sweeps=True)
