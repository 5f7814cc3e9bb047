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
    """What will be computed, in a few lines, each behind its name.

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
    if config.trainer.verbose:
        used = implementations(model, data.engine.dtype)
        lines += [
            ("id", config.run_id),
            ("details", data.task.meta.details()),
            ("operations", ", ".join(f"{name}: {how}" for name, how in used.items())),
            ("engine", f"{data.engine.describe()}; data {data.place}"),
        ]
    return lines


def warm_up_note(config: RunConfig, steps: int) -> str | None:
    """A sentence where the warm-up is longer than a run of so many steps."""
    warmup = config.schedule.warmup_steps
    if warmup < steps:
        return None
    return (
        f"the warm-up ({warmup:,} steps) is not over when the run ends: the "
        f"learning rate reaches {steps / warmup:.0%} of its peak"
    )
