"""Where the cells of a sweep may run: the GPUs and cores of this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


class Slots:
    """Where cells may run: ``at_once`` of them on each GPU.

    Args:
        gpus: their names for CUDA_VISIBLE_DEVICES; none: the CPU is the one place.
        at_once: cells that share one.
    """

    def __init__(self, gpus: Sequence[str], at_once: int) -> None:
        self.free = dict.fromkeys(gpus or ["CPU"], at_once)
        self.has_gpus = bool(gpus)

    def take(self, devices: int) -> list[str] | None:
        """A slot on each of ``devices`` GPUs, the emptiest first; None if they are not free.

        Who asks for more GPUs than there are gets one slot of each, and the run says the rest.
        """
        wanted = min(devices, len(self.free)) if self.has_gpus else 1
        places = sorted(self.free, key=lambda place: -self.free[place])[:wanted]
        if any(self.free[place] == 0 for place in places):
            return None
        for place in places:
            self.free[place] -= 1
        return places

    def give(self, places: Sequence[str]) -> None:
        """Take back what ``take`` gave."""
        for place in places:
            self.free[place] += 1


def warning_of(gpus: Sequence[str], at_once: int) -> str | None:
    """What is to be said where cells may take turns on a GPU; None: they will not."""
    pipes = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))  # CUDA's default
    if not gpus or at_once == 1 or (pipes / "control").exists():
        return None
    return (
        "note: MPS does not run, so cells that share a GPU take turns: no faster than one by one, "
        "and seen to compute wrongly\n  try: nvidia-cuda-mps-control -d before; docs/training.md"
    )


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs of this machine that may be used, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # here, so that --help need not wait for it

    count = torch.cuda.device_count()
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    return asked.split(",")[:count] if asked else [str(gpu) for gpu in range(count)]
