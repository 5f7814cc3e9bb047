"""What a run says before it trains."""

from __future__ import annotations

from typing import Any

from torch import nn

from chela.config.schema import RunConfig
from chela.records.record import FILE
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
) -> list[tuple[str, str]]:
    """What will be computed, in four lines, each behind its name, and what it begins with.

    Args:
        config: of the run.
        folder: where it writes.
        start: how it begins.
        data: that it is trained on.
        model: that is trained.
        initial: what the record says of the weights it began with; None: drawn at random.
    """
    steps, batch, backbone = data.steps, config.trainer.batch_size, config.model.backbone
    count = sum(p.numel() for p in model.parameters())
    epochs = steps * batch / len(data.task.samples("train"))
    lines = [
        ("data", data.task.meta.headline()),
        (
            "model",
            f"{config.model.name}, depth {backbone.depth}, {backbone.dim} channels, "
            f"{count:,} parameters",
        ),
        (
            "training",
            f"{steps:,} steps of {batch:,} samples ({epochs:.3g} epochs) on {data.engine.place}",
        ),
        ("record", str(folder.path / FILE)),
    ]
    if initial is not None:
        what = f"with the weights of {initial['run_id']}, step {initial['step']:,}"
        lines.append(("begins", what))
    if start.checkpoint is not None:
        lines.append(("resuming", f"at step {start.step:,} of {steps:,} from {start.checkpoint}"))
    return lines


def rest(config: RunConfig, data: DataModule, model: nn.Module) -> list[tuple[str, str]]:
    """What ``trainer.verbose=true`` adds to ``opening``."""
    engine = data.engine
    used = (f"{name}: {how}" for name, how in implementations(model, engine.dtype).items())
    return [
        ("id", config.run_id),
        ("details", data.task.meta.details()),
        ("operations", ", ".join(used)),
        ("engine", f"{engine.describe()}; data {data.place}"),
    ]


def warm_up_note(config: RunConfig, steps: int) -> str | None:
    """A sentence where the warm-up is longer than a run of so many steps."""
    warmup = config.schedule.warmup_steps
    if warmup < steps:
        return None
    return (
        f"the warm-up ({warmup:,} steps) is not over when the run ends: the "
        f"learning rate reaches {steps / warmup:.0%} of its peak"
    )
