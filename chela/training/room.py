"""How much memory there is to have: of a GPU, or of a machine, a job on it and a process."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch


def free_bytes(device: torch.device) -> float | None:
    """Bytes that this process can still have; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    rooms = [*_of_the_machine(), *_of_the_groups(), *_of_the_process()]
    return min(rooms, default=None)


def _of_the_machine() -> Iterator[float]:
    with suppress(OSError, KeyError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        known = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        yield 1024 * (known["MemAvailable"] + known["SwapFree"])


def _of_the_groups() -> Iterator[float]:
    """Of a container or a batch system's job: limits stand at the group and at those above it."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            first = controllers == "memory"
            if not first and controllers:
                continue
            root = Path("/sys/fs/cgroup/memory" if first else "/sys/fs/cgroup")
            group = root / place.lstrip("/")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            limit, usage = names if first else ("memory.max", "memory.current")
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):
                    files = dict(
                        each.split() for each in (folder / "memory.stat").read_text().splitlines()
                    )
                    cached = int(files.get("inactive_file", 0))
                    most, used = (int((folder / name).read_text()) for name in (limit, usage))
                    yield most - used + cached
                if folder == root:
                    break


def _of_the_process() -> Iterator[float]:
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            yield most - pages * resource.getpagesize()
