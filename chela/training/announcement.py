"""What a run says before it trains."""

from __future__ import annotations

from typing import Any

from torch import nn

from chela.config.schema import RunConfig
from chela.training.data import DataModule
from chela.training.evidence import implementations
from chela.training.folder import RunFolder, Start


def opening(
    config: RunConfig,
    folder: RunFolder,
    start: Start,
    data: DataModule,
    model: nn.Module,
    initial: dict[str, Any] | None,
    wandb: str,
) -> str:
    """What will be computed, a line for each part.

    Args:
        config: of the run.
        folder: where it writes.
        start: how it begins.
        data: that it is trained on.
        model: that is trained.
        initial: what the record says of the weights it began with; None: drawn at random.
        wandb: what becomes of it in W&B.
    """
    engine, steps = data.engine, data.steps
    used = ", ".join(f"{name}: {how}" for name, how in implementations(model, engine.dtype).items())
    count = sum(p.numel() for p in model.parameters())
    lines = [
        f"{config.run_id} in {folder.path}",
        f"  data       {data.task.meta.describe()}",
        f"  model      {config.model.name}, {count:,} parameters; {used}",
        f"  training   {steps:,} steps of {config.trainer.batch_size} on "
        f"{engine.describe()}; data {data.place}",
        f"  W&B        {wandb}",
    ]
    if initial is not None:
        lines.append(
            f"  begins     with the weights of {initial['run_id']}, step {initial['step']:,}"
        )
    if start.checkpoint is not None:
        lines.append(f"  resuming   at step {start.step:,} of {steps:,} from {start.checkpoint}")
    return "\n".join(lines)


def warm_up_note(config: RunConfig, steps: int) -> str | None:
    """A sentence where the warm-up is longer than a run of so many steps."""
    warmup = config.schedule.warmup_steps
    if warmup < steps:
        return None
    return (
        f"the warm-up ({warmup:,} steps) is not over when the run ends: the "
        f"learning rate reaches {steps / warmup:.0%} of its peak"
    )
