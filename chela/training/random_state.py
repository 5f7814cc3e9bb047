"""The state of every random number generator, in every process, so that a resume draws on."""

from __future__ import annotations

import random
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from chela.layers.processes import processes


def random_state() -> dict[str, Any]:
    """The generators of Python, NumPy, torch and this process's GPU, as plain values and tensors.

    Not of all GPUs: how many a process sees may differ when it is resumed.
    """
    _, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (np.asarray(keys).tolist(), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set all generators to what ``random_state`` returned."""
    random.setstate(state["python"])
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys, position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][0].cpu())


class RandomState(Callback):
    """Saves and restores the generators of all processes with the checkpoint.

    The model is built from the run's seed alike in every process; from the first step on each draws
    its own dropout.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._to_restore: list[dict[str, Any]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """``{"processes": the state of each, in the order of ranks}``."""
        states = [random_state()]
        if processes() > 1:
            states *= processes()
            dist.all_gather_object(states, random_state())
        return {"processes": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the state until training starts: what comes between may draw numbers."""
        self._to_restore = state["processes"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Set the generators to where they stood, or apart from those of the other processes."""
        rank, states = trainer.global_rank, self._to_restore or []
        if rank < len(states):
            set_random_state(states[rank])
        elif rank > 0:
            torch.manual_seed(self.seed + rank)  # rank 0 goes on from the model's initialisation
        self._to_restore = None
