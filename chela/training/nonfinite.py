"""A step that was not finite: what is told of it, and kept to look at it again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from chela.errors import RunError
from chela.layers.processes import processes
from chela.layers.sequence import parts
from chela.records.files import atomic_file
from chela.training.optim import states
from chela.training.random_state import random_state

SHOWN = 3  # rows of a batch, and names, in an error, which goes into records and reports


class NonFinite(RunError):
    """The loss, the gradient or the update was not finite; the step has changed no weight.

    ``evidence`` holds what is needed to look at that step again: the weights, too, which are those
    of that step unless a later one was good.
    """

    def __init__(self, message: str, evidence: dict[str, Any]) -> None:
        super().__init__(message)
        self.evidence = evidence

    def keep(self, folder: Path) -> Path:
        """Save the evidence and the random state in a run's folder; returns the file."""
        file = folder / "nonfinite.pt"
        with atomic_file(file) as stream:
            torch.save({**self.evidence, "random_state": random_state()}, stream)
        return file

    @classmethod
    def of(
        cls,
        bad: Mapping[str, Tensor],
        skipped: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> NonFinite:
        """What is to be raised after a step, in all processes alike, which call this together.

        Args:
            bad: its number ``step``, ``norm`` of the gradient, and of this process's samples
                ``loss`` and ``rows`` (B,).
            skipped: steps of the run that were not finite, with this one.
            model: as that step, or a later good one, has left it.
            optimizer: of its parameters.
        """
        step = int(bad["step"])
        found = [(bad["loss"].item(), bad["norm"].item(), bad["rows"].tolist())] * processes()
        if processes() > 1:
            dist.all_gather_object(found, found[0])
        losses, norms, _ = zip(*found, strict=True)
        loss = sum(losses) / len(losses)
        norm = next((each for each in norms if not math.isfinite(each)), norms[0])
        shares = found[:: parts()]  # those that hold a sequence have one together
        rows = [row for *_, own in shares for row in own]
        advice = "a lower learning rate, a longer warm-up, trainer.precision=float32"
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif not math.isfinite(norm):
            what = f"the gradient's norm is {norm}"
        else:
            what = "Muon's update is larger than its formula can make one"
            advice = (
                "the same command again; if a GPU computes wrongly, as was seen where programs "
                "shared one by turns, let it have one alone, or all of them be inside of MPS"
            )
        before = f", after {skipped - 1} skipped ones" if skipped > 1 else ""
        broken = _broken(model, optimizer)
        held = "all weights, running averages and states of the optimizer are finite"
        if broken:
            held = f"not finite since an earlier step: {_some(broken)}"
        return cls(
            f"{what} at step {step}{before}; it has changed no weight.\n"
            f"  the batch: {len(rows)} rows of the training split ({_some(rows)})\n"
            f"  {held}\n"
            f"  try: {advice}",
            {
                "step": step,
                "rows": rows,
                "loss": loss,
                "gradient_norm": norm,
                "broken": broken,
                "model": {name: x.cpu() for name, x in model.state_dict().items()},
            },
        )


def _broken(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of what a checkpoint holds, and holds something not finite.

    Buffers that it does not hold are no outcome of training, such as masks of -inf.
    """
    names = {id(each): name for name, each in model.named_parameters()}
    held: dict[str, Tensor] = dict(model.state_dict())
    for owner, name, value in states(optimizer):
        held[f"{name} of {names[id(owner)]}"] = value
    return [name for name, value in held.items() if not value.isfinite().all()]


def _some(things: Sequence[object]) -> str:
    return ", ".join(map(str, things[:SHOWN])) + (", ..." if len(things) > SHOWN else "")
