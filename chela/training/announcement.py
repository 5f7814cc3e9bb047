"""What a run says before it trains."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from typing import Any

from torch import nn

from chela.config.schema import RunConfig, computation
from chela.records.record import read_record
from chela.training.data import DataModule
from chela.training.evidence import implementations
from chela.training.folder import RunFolder, Start

BUDGET = {"trainer.max_epochs", "trainer.max_steps"}


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


def notes(config: RunConfig, start: Start, steps: int) -> Iterator[str]:
    """What a user may not have meant.

    Args:
        config: of the run.
        start: how it begins.
        steps: of the whole run.
    """
    warmup = config.schedule.warmup_steps
    if warmup >= steps:
        yield (
            f"the warm-up ({warmup:,} steps) is not over when the run ends: the "
            f"learning rate reaches {steps / warmup:.0%} of its peak"
        )
    if start.checkpoint is None and config.start_from is None:
        shorter = [run for run in of_other_budgets(config) if run[0] < steps]
        if shorter:
            trained, name = max(shorter)
            yield (
                f"{name} differs in its budget alone and has trained {trained:,} steps. "
                "The schedule follows the budget, so this run starts at step 0; "
                f"start_from={name} would begin with its weights"
            )


def of_other_budgets(config: RunConfig) -> list[tuple[int, str]]:
    """Finished runs of this name and seed that differ in how long they train, and in nothing else.

    Args:
        config: of a run.

    Returns:
        The steps that each has trained, and its ``<name>-<hash>``.
    """
    own = RunFolder(config).path
    wanted = _without_budget(computation(config))
    pattern = f"{glob.escape(own.parent.name.removesuffix(config.identity))}????????/{own.name}"
    found = []
    for folder in own.parents[1].glob(pattern):
        if folder == own:
            continue
        try:
            record = read_record(folder)
            if record is None or record["status"] != "finished":
                continue
            if _without_budget(record["identity"]) == wanted:
                found.append((int(record["training"]["steps"]), folder.parent.name))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # it cannot be read, or is of an older version: not this run's business
    return found


def _without_budget(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key not in BUDGET}
