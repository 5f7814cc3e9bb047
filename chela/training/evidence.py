"""What is known of a run before its first step and after its last: the content of its record."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

import chela
from chela.config.command import command_line
from chela.config.recipe import departures
from chela.config.schema import RunConfig, as_dict, computation
from chela.errors import RunError
from chela.objectives.base import Means, Objective
from chela.records.environment import git_state, hardware, peak_memory, versions
from chela.records.source import changes, code_state, source_files
from chela.track.wandb_run import WandbRun
from chela.training.checkpoints import Checkpointer
from chela.training.data import DataModule
from chela.training.distributed import is_of_another
from chela.training.engine import FORMS
from chela.training.folder import Start
from chela.training.history import History
from chela.training.module import TrainingModule
from tasks.base import PROTOCOLS
from tasks.holder import batch_job
from tasks.storage.meta import Meta

# beside the mixer's: with all that they import, see source_files
ALWAYS = ("chela.model.models", "chela.training.module", "chela.training.optim")


class Provenance(Callback):
    """What a checkpoint says of its run, so that only the same run goes on from it."""

    def __init__(
        self,
        config: RunConfig,
        start: Start,
        fingerprint: str,
        precision: str,
        initial_weights: dict[str, Any] | None,
    ) -> None:
        earlier = start.provenance or {"sessions": 0, "wall_seconds": 0.0, "precisions": []}
        precisions: list[str] = earlier["precisions"]
        if precision not in precisions[-1:]:
            precisions = [*precisions, precision]
        code = code_state(*computing(config))
        self.code_changes = changes(earlier.get("code"), code)
        self.fixed = {
            "config": {"seed": config.seed, **computation(config)},
            "fingerprint": fingerprint,
            "wandb_id": start.wandb_id,
            "sessions": earlier["sessions"] + 1,
            "precisions": precisions,
            "initial_weights": earlier.get("initial_weights", initial_weights),
            "code": code,
            "earlier_code": _with_last(earlier),
        }
        self._earlier_seconds = earlier["wall_seconds"]
        self._started = time.monotonic()
        self._checkpoint, self._goes_on = start.checkpoint, False

    @property
    def wall_seconds(self) -> float:
        """Seconds since the start, those of interrupted sessions included."""
        return float(self._earlier_seconds + time.monotonic() - self._started)

    @property
    def precision(self) -> str:
        """That of the run; ``bf16, then float32`` where a session on another device has another."""
        return ", then ".join(self.fixed["precisions"])

    @property
    def notices(self) -> Iterator[str]:
        """What the user should know of another precision or other code than before."""
        if self.code_changes:
            yield (
                f"the code is not that of the steps before, as its record will say "
                f"({self.code_changes} differ); for one code go back to it, or resume=false"
            )
        if len(self.fixed["precisions"]) > 1:
            yield (
                f"trainer.precision=auto follows the device, and this run is now {self.precision}, "
                "as its record will say; for one precision go on where it began, or resume=false"
            )

    @contextmanager
    def other_code(self) -> Iterator[None]:
        """Around training: other code may not know what to make of the checkpoint.

        Raises:
            RunError: it did not, before the first step.
        """
        try:
            yield
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            if self._goes_on or not self.code_changes or is_of_another(error):
                raise
            raise RunError(
                f"{self._checkpoint} is of other code ({self.code_changes} differ), and this one "
                f"cannot go on from it: {error}\n  try: the code of then, or resume=false"
            ) from error

    def on_train_start(self, *_: Any) -> None:
        """All that the checkpoint holds has found its place."""
        self._goes_on = True

    def state_dict(self) -> dict[str, Any]:
        """Configuration, data, W&B id, sessions, precisions, initial weights and time so far."""
        return {**self.fixed, "wall_seconds": self.wall_seconds}


def beginning(
    config: RunConfig,
    provenance: Provenance,
    wandb: WandbRun,
    wandb_group: str,
    data: DataModule,
    module: TrainingModule,
) -> dict[str, Any]:
    """The part of the record that is known before the first step."""
    ran = source_files(*computing(config), config.task.target.__module__)
    model, metric = module.model, module.objective.primary
    return {
        "run_id": config.run_id,
        "wandb_id": provenance.fixed["wandb_id"],
        "wandb_group": wandb_group,
        "wandb_mode": wandb.mode,
        "wandb_run": wandb.place(),
        "command": command_line(sys.argv),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": as_dict(config),
        "identity": computation(config),
        "departures": departures(config),
        "git": git_state(Path(chela.__file__).parent, ran.values()),
        "code": {**provenance.fixed["code"], "earlier": provenance.fixed["earlier_code"]},
        "batch_job": batch_job(),
        "versions": versions(),
        "hardware": hardware(data.engine.device),
        "precision": provenance.precision,
        "data": data.task.meta.summary(),
        "protocol": {
            "name": data.task.protocol,
            "selection": f"{metric.best} {PROTOCOLS[data.task.protocol]}; the first of equals",
            "test": "once, with the selected weights, on the whole test split",
            "metric": {
                "name": metric.name,
                "unit": metric.unit,
                "direction": metric.direction,
            },
            **({"evaluation": seen} if (seen := data.task.evaluation) else {}),
        },
        "parameters": {
            "total": sum(p.numel() for p in model.parameters()),
            "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        },
        "engine": {"step": FORMS[data.engine.step], "data": data.place},
        "initial_weights": provenance.fixed["initial_weights"],
        "implementations": implementations(model, data.engine.dtype),
    }


def outcome(
    history: History,
    checkpointer: Checkpointer,
    provenance: Provenance,
    planned_steps: int,
    peak: tuple[int | None, str],
) -> dict[str, Any]:
    """The part of the record that is known after the last step, be it the planned one or not.

    ``tokens_per_second`` is the median of the logged intervals, so that the first one, which holds
    the warm-up of the machine, does not count. Of ``peak`` see ``peak_of``.
    """
    speeds = [row["tokens_per_second"] for row in history.rows if "tokens_per_second" in row]
    return {
        "training": {
            "steps": history.step,
            "planned_steps": planned_steps,
            "skipped_steps": history.skipped_steps,
            "epochs": history.epochs(history.step),
            "tokens": max(history.tokens, history.tokens_saved),
            "tokens_per_second": median(speeds) if speeds else None,
            "train_seconds": max(history.train_seconds, history.seconds_saved),
            "wall_seconds": provenance.wall_seconds,
            "sessions": provenance.fixed["sessions"],
            "peak_memory_bytes": peak[0],
            "peak_memory_of": peak[1],
        },
        "best": {"step": checkpointer.best_step, "value": checkpointer.best},
        "metrics": history.rows,
    }


def test_result(
    objective: Objective, means: Means, data: Meta, kinds: Mapping[str, Means]
) -> dict[str, Any]:
    """The test section: each metric with its standard error, and the baseline beside them.

    Args:
        objective: of the run.
        means: what the test came to.
        data: of the task; where a sample has one class, the accuracy of always answering the
            training split's most frequent one belongs to the section.
        kinds: what it came to for each kind of sample, where they are told apart.
    """
    majority = {"majority_class_accuracy": data.majority_accuracy("test")}
    apart = {name: _measured(objective, of_kind) for name, of_kind in kinds.items()}
    return {
        **_measured(objective, means),
        "primary": objective.primary.name,
        **({"kinds": apart} if apart else {}),
        **(majority if objective.per_sample else {}),
    }


def _measured(objective: Objective, means: Means) -> dict[str, Any]:
    """How many targets, and each metric of them."""
    return {
        "n": round(means.n),
        "metrics": {
            each.name: {
                "value": each.value(means),
                "unit": each.unit,
                "direction": each.direction,
                "standard_error": each.error(means),
            }
            for each in objective.metrics
        },
    }


def implementations(model: nn.Module, dtype: torch.dtype) -> dict[str, str]:
    """Which implementation each operation of the model uses: ``{"long_conv": "torch", ...}``.

    Where modules differ, as parts of different widths may, all are named: ``torch and triton``.

    Args:
        model: its modules declare ``operation`` and ``implementation``.
        dtype: in which it computes, since not every kernel serves every one.
    """
    found: dict[str, set[str]] = {}
    for module in model.modules():
        operation: str | None = getattr(module, "operation", None)
        if operation is not None:
            tell: Any = getattr(module, "implementation_in", None)
            how = str(module.implementation if tell is None else tell(dtype))
            found.setdefault(operation, set()).add(how)
    return {operation: " and ".join(sorted(used)) for operation, used in found.items()}


def computing(config: RunConfig) -> tuple[str, ...]:
    """The modules whose code decides what a run of this configuration computes of its data."""
    return (config.model.mixer.target.__module__, *ALWAYS)


def code_note(config: RunConfig, record: Mapping[str, Any]) -> str | None:
    """What is to be said where the code is not that of a run; None where it is, or not known."""
    found = changes(record.get("code"), code_state(*computing(config)))
    return found and f"the code differs from that run's: {found}"


def peak_of(device: torch.device, measured: bool) -> tuple[int | None, str]:
    """The most bytes that this run took, and of what; None where other runs may have taken them."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(), "GPU allocations"
    return peak_memory() if measured else None, "the process"


def _with_last(earlier: dict[str, Any]) -> list[str]:
    """The hashes of the code of all sessions before, each once in a row."""
    codes: list[str] = earlier.get("earlier_code", [])
    last = (earlier.get("code") or {}).get("hash")
    return codes if last is None or last in codes[-1:] else [*codes, last]
