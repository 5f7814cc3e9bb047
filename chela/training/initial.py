"""Weights to begin with: those that an earlier run has selected."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chela.errors import RunError, suggestion
from chela.records.record import FILE, read_record
from chela.training.checkpoints import BEST

PREFIX = "model."  # of the model's weights in a checkpoint of a run


def find_initial(output_dir: Path, name: str, seed: int) -> dict[str, Any]:
    """The record of ``output_dir/name/seed<seed>``, whose weights can be begun with.

    Args:
        output_dir: where runs have their folders.
        name: the earlier run's, without its seed: ``pathfinder-chela-1234abcd``.
        seed: of both runs, so that a sweep over seeds is as many independent chains.

    Raises:
        RunError: there is no such run, its record cannot be read, or it is not finished.
    """
    folder = output_dir / name / f"seed{seed}"
    try:
        record = read_record(folder)
    except ValueError as error:
        raise RunError(
            f"start_from={name}: the record in {folder} cannot be read.\n"
            "  try: run it anew with resume=false"
        ) from error
    if record is None:
        others = output_dir.glob(f"*/seed{seed}/{FILE}")
        known = sorted(file.parent.parent.name for file in others)
        raise RunError(
            f"start_from={name}: there is no run {folder}. {suggestion(name, known)}\n"
            "  try: run it first, with the same seed and output_dir"
        )
    if record["status"] != "finished":
        raise RunError(
            f"start_from={name}: {folder} is {record['status']}.\n  try: finish it first"
        )
    return record


def load_initial(model: nn.Module, output_dir: Path, name: str, seed: int) -> dict[str, Any]:
    """Give ``model`` the weights that were selected by ``output_dir/name/seed<seed>``.

    Args:
        model: of the same sizes as that run's; changed in place.
        output_dir: see ``find_initial``.
        name: see there.
        seed: see there.

    Returns:
        What the record says of them: run, task, data's fingerprint, step and the file's SHA-256.

    Raises:
        RunError: see ``find_initial``; or its weights cannot be read, are not those it selected, or
            are for another model.
    """
    record = find_initial(output_dir, name, seed)
    file = output_dir / name / f"seed{seed}" / "checkpoints" / BEST
    try:
        stored = file.read_bytes()
        content = torch.load(BytesIO(stored), map_location="cpu", weights_only=True)
        step = content["global_step"]
        weights = {
            key.removeprefix(PREFIX): value
            for key, value in content["state_dict"].items()
            if key.startswith(PREFIX)
        }
    except Exception as error:  # a missing or truncated file fails in many ways
        raise RunError(
            f"start_from={name}: {file} cannot be read as weights ({type(error).__name__}).\n"
            "  try: run it anew with resume=false"
        ) from error
    if step != record["best"]["step"]:
        raise RunError(
            f"start_from={name}: {file} has the weights of step {step}, but its record selected "
            f"step {record['best']['step']}.\n  try: run it anew with resume=false"
        )
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    theirs = {key: tuple(value.shape) for key, value in weights.items()}
    wrong = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    if wrong:
        lines = [f"  {key}: {theirs.get(key)} there, {ours.get(key)} here" for key in wrong[:5]]
        more = f"\n  and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise RunError(
            f"start_from={name}: its weights are for another model; set the same sizes as it has:\n"
            + "\n".join(lines)
            + more
        )
    model.load_state_dict(weights)
    return {
        "run_id": record["run_id"],
        "task": record["data"]["task"],
        "data_fingerprint": record["data"]["fingerprint"],
        "step": step,
        "sha256": hashlib.sha256(stored).hexdigest(),
    }
