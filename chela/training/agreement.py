"""What the processes that torchrun or srun has started agree on before their run begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from lightning.fabric.utilities.distributed import _init_dist_connection

from chela.config.identity import flat
from chela.config.schema import RunConfig, as_dict
from chela.errors import ChelaError, RunError
from chela.layers.processes import processes
from chela.training.distributed import MISSED, environment, is_leader, is_of_another

T = TypeVar("T")
OWN = ("data_dir", "output_dir")  # that each node may have in a place of its own
LONGEST = timedelta(days=1)  # that one may prepare data for, on a node's own disk, and others wait


def agreed(decide: Callable[[], T], device: torch.device) -> T:
    """What the leading process decides, in all of those that were started outside.

    Args:
        decide: asked in that one alone, while the others wait.
        device: of the run.

    Raises:
        Exception: what ``decide`` raised, in the leading process, which says it.
        SystemExit: in the others then, with the same status.
        RunError: another process has ended before all could agree, which has said why.
    """
    found = environment()
    if device.type == "cuda":
        torch.cuda.set_device(found.local_rank())
    backend = "nccl" if device.type == "cuda" else "gloo"
    _init_dist_connection(found, backend, timeout=MISSED)
    group = _patient()
    box: list[Any] = [None, 1]  # what was decided, and the status to end with
    if not is_leader():
        with _together():
            dist.broadcast_object_list(box, group=group)
        if box[1]:
            raise SystemExit(box[1])
        return cast("T", box[0])
    try:
        box = [decide(), 0]
    except ChelaError as error:
        box[1] = error.STATUS
        raise
    finally:
        with _together():
            dist.broadcast_object_list(box, group=group)
    return cast("T", box[0])


@cache
def _patient() -> dist.ProcessGroup:
    """All processes, which wait for each other as long as it may take to begin.

    It is made once, while all are there.
    """
    return dist.new_group(backend="gloo", timeout=LONGEST)


def decided(config: RunConfig) -> dict[str, Any]:
    """What a configuration has to say alike in all processes of its run."""
    return {name: value for name, value in flat(as_dict(config)).items() if name not in OWN}


def refuse_others(mine: Mapping[str, Any]) -> None:
    """See that the processes that were started outside are of one run, on every node.

    Args:
        mine: facts of the run, as this process has them, by their names.

    Raises:
        RunError: they are not; in one process of each node, which says it.
        SystemExit: in the others then.
    """
    found: list[Mapping[str, Any]] = [mine] * processes()
    with _together():
        dist.all_gather_object(found, mine, group=_patient())
    first = found[0]
    for rank, theirs in enumerate(found):
        for name in sorted(first.keys() | theirs.keys()):
            if first.get(name) == theirs.get(name):
                continue
            if environment().local_rank():
                raise SystemExit(1)
            raise RunError(
                f"the processes are not of one run: {name} is {first.get(name)} in the first one, "
                f"{theirs.get(name)} in process {rank}.\n"
                "  try: the same command and the same data on every node"
            )


@contextmanager
def _together() -> Iterator[None]:
    """Around what all processes do at once, before the run begins."""
    try:
        yield
    except RuntimeError as error:
        if not is_of_another(error):
            raise
        if environment().local_rank():  # one of each node says it
            raise SystemExit(1) from error
        raise RunError(
            "the run cannot begin: another of its processes has ended, of this node or another one."
            "\n  try: what that process said; then the same command"
        ) from error
