"""The weights that a finished run has selected, as they lie in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chela.config.command import typed
from chela.errors import RunError
from chela.records.record import FILE, read_record
from chela.training.checkpoints import BEST, read_checkpoint

PREFIX = "model."  # of the weights' names, in a checkpoint and in a model of transformers
BESIDES = 2**24  # bytes of a file beside its weights, at most
SHOWN = 5  # weights that do not fit; more would hide the first


def finished_record(folder: Path) -> dict[str, Any]:
    """The record of the finished run in ``folder``.

    Raises:
        RunError: there is none, it cannot be read, or the run is not finished.
    """
    try:
        record = read_record(folder)
    except ValueError as error:
        raise RunError(
            f"the record in {folder} cannot be read ({error}).\n"
            "  try: run it anew with resume=false"
        ) from error
    if record is None:
        below = sorted(str(file.parent) for file in folder.glob(f"*/{FILE}"))
        remedy = ", or ".join(below) or "a run's folder, <output_dir>/<name>-<hash>/seed<seed>"
        raise RunError(f"{folder} has no {FILE}, so it is no run's folder.\n  try: {remedy}")
    if record["status"] != "finished":
        how = "has failed" if record["status"] == "failed" else f"is {record['status']}"
        command = typed(str(record["command"]))
        raise RunError(f"the run in {folder} {how}.\n  try: finish it first: {command}")
    return record


def selected_weights(folder: Path, record: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """The weights that the run in ``folder`` has tested, on the CPU, by their names in the model.

    Args:
        folder: of the run.
        record: its record, see ``finished_record``.
        model: that they are for, on any device; it says how large they can be.

    Raises:
        RunError: they are not there, cannot be read, or are not those the record speaks of.
    """
    file, step = folder / "checkpoints" / BEST, record["best"]["step"]
    if not file.exists():
        raise RunError(
            f"{file} is missing, the weights of step {step}.\n"
            "  try: copy it there from where the run was, or run it anew with resume=false"
        )
    content = read_checkpoint(file, largest(model))
    found, stored = content["global_step"], content.get("state_dict")
    if found != step:
        raise RunError(
            f"{file} has the weights of step {found}, but its record selected step {step}.\n"
            "  try: run it anew with resume=false"
        )
    return {
        key.removeprefix(PREFIX): value
        for key, value in (stored.items() if isinstance(stored, dict) else ())
        if isinstance(key, str) and key.startswith(PREFIX) and _is_plain(value)
    }


def largest(model: nn.Module) -> int:
    """Bytes that a file of a model's weights can have."""
    return 2 * sum(each.nbytes for each in model.state_dict().values()) + BESIDES


def differences(model: nn.Module, weights: dict[str, Tensor]) -> str:
    """Which of ``weights`` have not the form of those of ``model``, a line each; empty: none."""
    ours = {key: _form(value) for key, value in model.state_dict().items()}
    theirs = {key: _form(value) for key, value in weights.items()}
    wrong = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    lines = [f"  {key}: {theirs.get(key)} there, {ours.get(key)} here" for key in wrong[:SHOWN]]
    if len(wrong) > SHOWN:
        lines.append(f"  and {len(wrong) - SHOWN} more")
    return "\n".join(lines)


def _form(value: Tensor) -> str:
    shape, kind = tuple(value.shape), str(value.dtype).removeprefix("torch.")
    return f"{shape}" if kind == "float32" else f"{shape} {kind}"


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor whose values are there: neither sparse nor of no device."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
