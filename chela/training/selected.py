"""The weights that a finished run has selected, as they lie in its folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chela.errors import RunError
from chela.records.record import FILE, read_record
from chela.training.checkpoints import BEST

PREFIX = "model."  # of the model's weights in a checkpoint of a run
SHOWN = 5  # weights that do not fit; more would hide the first


@dataclass(frozen=True)
class Selected:
    """Weights of the best validation."""

    weights: dict[str, Tensor]  # on the CPU, by their names in the model
    step: int
    sha256: str  # of the file


def finished_record(folder: Path) -> dict[str, Any]:
    """The record of the finished run in ``folder``.

    Raises:
        RunError: there is none, it cannot be read, or the run is not finished.
    """
    try:
        record = read_record(folder)
    except ValueError as error:
        raise RunError(
            f"the record in {folder} cannot be read.\n  try: run it anew with resume=false"
        ) from error
    if record is None:
        below = sorted(str(file.parent) for file in folder.glob(f"*/{FILE}"))
        remedy = ", or ".join(below) or "a run's folder, <output_dir>/<name>-<hash>/seed<seed>"
        raise RunError(f"{folder} has no {FILE}, so it is no run's folder.\n  try: {remedy}")
    if record["status"] != "finished":
        raise RunError(f"{folder} is {record['status']}.\n  try: finish it first")
    return record


def selected_weights(folder: Path, record: dict[str, Any]) -> Selected:
    """The weights that the run in ``folder`` has tested.

    Args:
        folder: of the run.
        record: its record, see ``finished_record``.

    Raises:
        RunError: they are not there, cannot be read, or are not those the record speaks of.
    """
    file, step = folder / "checkpoints" / BEST, record["best"]["step"]
    if not file.exists():
        raise RunError(
            f"{file} is missing, the weights of step {step}.\n"
            "  try: copy it there from where the run was, or run it anew with resume=false"
        )
    try:
        stored = file.read_bytes()
        content = torch.load(BytesIO(stored), map_location="cpu", weights_only=True)
        found = content["global_step"]
        weights = {
            key.removeprefix(PREFIX): value
            for key, value in content["state_dict"].items()
            if key.startswith(PREFIX)
        }
    except Exception as error:  # a truncated file fails in many ways
        raise RunError(
            f"{file} cannot be read as weights ({type(error).__name__}).\n"
            "  try: run it anew with resume=false"
        ) from error
    if found != step:
        raise RunError(
            f"{file} has the weights of step {found}, but its record selected step {step}.\n"
            "  try: run it anew with resume=false"
        )
    return Selected(weights, step, hashlib.sha256(stored).hexdigest())


def differences(model: nn.Module, weights: dict[str, Tensor]) -> str:
    """Which shapes of ``weights`` are not those of ``model``, a line each; empty if they fit."""
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    theirs = {key: tuple(value.shape) for key, value in weights.items()}
    wrong = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    lines = [f"  {key}: {theirs.get(key)} there, {ours.get(key)} here" for key in wrong[:SHOWN]]
    if len(wrong) > SHOWN:
        lines.append(f"  and {len(wrong) - SHOWN} more")
    return "\n".join(lines)
