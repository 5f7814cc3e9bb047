"""Weights to begin with: those that an earlier run has selected."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from chela.errors import RunError, suggestion
from chela.records.record import FILE
from chela.training.checkpoints import BEST
from chela.training.selected import differences, finished_record, selected_weights


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
    with _named(name):
        if not (folder / FILE).exists():
            others = output_dir.glob(f"*/seed{seed}/{FILE}")
            known = sorted(file.parent.parent.name for file in others)
            raise RunError(
                f"there is no run {folder}. {suggestion(name, known)}\n"
                "  try: run it first, with the same seed and output_dir"
            )
        return finished_record(folder)


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
    record, folder = find_initial(output_dir, name, seed), output_dir / name / f"seed{seed}"
    with _named(name):
        weights = selected_weights(folder, record, model)
        if wrong := differences(model, weights):
            raise RunError(
                f"its weights are for another model; set the same sizes as it has:\n{wrong}"
            )
    model.load_state_dict(weights)
    return {
        "run_id": record["run_id"],
        "task": record["data"]["task"],
        "data_fingerprint": record["data"]["fingerprint"],
        "step": record["best"]["step"],
        "sha256": hashlib.sha256((folder / "checkpoints" / BEST).read_bytes()).hexdigest(),
    }


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Begin an error's message with the key that brought it about."""
    try:
        yield
    except RunError as error:
        raise RunError(f"start_from={name}: {error}") from error
