"""Where a run took place: versions, hardware, the state of the code."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("chela", "triton", "lightning", "torchmetrics", "datasets", "hydra-core", "wandb")


def versions() -> dict[str, str | None]:
    """Python's version and those of the packages a result may depend on; None if not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "cuda": torch.version.cuda}
    found["torch"] = str(torch.__version__)  # with the build, which its metadata may lack
    return found | {package: _version(package) for package in PACKAGES}


def hardware(device: torch.device) -> dict[str, Any]:
    """The processor, and the GPU if ``device`` is one.

    Args:
        device: what the run computes on.

    Returns:
        Names, counts, and memory in bytes.
    """
    found: dict[str, Any] = {
        "device": device.type,
        "cpu": _cpu_name(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "torch_threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()}",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_memory": properties.total_memory}
    return found


def git_state(folder: Path) -> dict[str, Any]:
    """The commit of the checkout around ``folder`` and whether files differ; None outside one."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
