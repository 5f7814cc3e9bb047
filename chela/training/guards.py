"""What is watched while a model trains, so that a lost run is noticed early and explained."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from chela.config.settings import TrainerConfig
from chela.training.history import History
from tasks.screen import Screen

# A loss within 2 % of that of guessing has learned nothing yet.
NEAR = 0.98


class Plateau(Callback):
    """Says once that the loss has never left that of guessing, and what has helped others.

    Pathfinder in particular stays at ln 2 for thousands of steps before it breaks away, or never.

    Args:
        history: where the training loss is read, as often as it is logged.
        steps: how long to wait before saying so.
        console: where it is said.
    """

    def __init__(self, history: History, steps: int, console: Screen) -> None:
        self.history, self.steps, self.console = history, steps, console
        self.guessing = history.objective.guessing
        self.left = self.said = False

    def state_dict(self) -> dict[str, bool]:
        """Whether the loss has left the plateau, and whether it was said that it has not."""
        return {"left": self.left, "said": self.said}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        """Go on from the checkpoint's."""
        self.left, self.said = state["left"], state["said"]

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Look at the newest logged loss."""
        if self.left or self.said or "train/loss" not in self.history.latest:
            return
        if self.history.latest["train/loss"] < NEAR * self.guessing:
            self.left = True
        elif trainer.global_step >= self.steps:
            self.said = True
            loss = self.history.latest["train/loss"]
            self.console.say(
                f"note: after {trainer.global_step:,} steps the training loss is still {loss:.3f}, "
                f"about ln(classes) = {self.guessing:.3f}, as by guessing.\n"
                "  It may still break away (Pathfinder often takes thousands of steps). If not, "
                "try: a learning rate 3 times smaller or larger, a longer warm-up, "
                "model.norm=batch, less dropout"
            )


def out_of_memory(config: TrainerConfig, length: int, total: int) -> str:
    """What to change when the GPU's memory did not suffice, and what that would need.

    Activations are what fills it, and they grow in proportion to the tokens computed at once.
    """
    peak = torch.cuda.max_memory_allocated() / 2**30
    at_once = config.micro_batch_size or config.batch_size // config.replicas
    half = max(1, at_once // 2)
    share = half / at_once
    if at_once == 1:
        devices, together = 2 * config.devices, 2 * config.sequence_devices
        smaller, share = f"trainer.devices={devices} trainer.sequence_devices={together}", 0.5
    elif config.processes > 1:  # which have no micro batches
        smaller = f"trainer.batch_size={half * config.replicas}"
    else:
        smaller = f"trainer.micro_batch_size={half}"
    return (
        f"the GPU's memory ({total / 2**30:.0f} GiB) is too small for {at_once} samples of length "
        f"{length:,} at once; {peak:.1f} GiB were in use.\n"
        f"  try: {smaller} (about {peak * share:.1f} GiB), trainer.step=compile (a graph "
        "keeps its memory), a smaller trainer.eval_batch_size if it was a validation, or a smaller "
        "model.dim"
    )
