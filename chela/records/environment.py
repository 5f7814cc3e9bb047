"""Where a run took place: versions, hardware, the state of the code."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from chela.records.source import file_hash

PEAK_RESET, PEAK = Path("/proc/self/clear_refs"), Path("/proc/self/status")  # Linux
PACKAGES = ("chela", "triton", "lightning", "torchmetrics", "datasets", "hydra-core", "wandb")


def versions() -> dict[str, str | None]:
    """Python's version and those of the packages a result may depend on; None if not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "cuda": torch.version.cuda}
    found["torch"] = str(torch.__version__)  # with the build, which its metadata may lack
    return found | {package: _version(package) for package in PACKAGES}


def hardware(device: torch.device) -> dict[str, Any]:
    """The processor, and the GPU if ``device`` is one.

    Returns:
        Names, counts, and memory in bytes.
    """
    found: dict[str, Any] = {
        "host": platform.node(),
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


def git_state(folder: Path, files: Iterable[Path] = ()) -> dict[str, Any]:
    """The commit of the checkout around ``folder``, and whether what ran is other than that.

    Args:
        folder: a package of the checkout.
        files: further ones that ran; those that the commit does not have are named, with a hash.

    Returns:
        ``commit`` and ``dirty``, None outside a checkout, and ``untracked``.
    """
    root = _git(folder, "rev-parse", "--show-toplevel")
    tracked = _git(folder, "ls-files", "-z", "--full-name", ":/")
    known = set() if root is None else {Path(root, each) for each in (tracked or "").split("\0")}
    if root is None or (folder / "__init__.py").resolve() not in known:
        # outside of a checkout, or installed below another's
        return {"commit": None, "dirty": None, "untracked": {}}
    others = sorted(file.resolve() for file in files if file.resolve() not in known)
    untracked = {
        str(file.relative_to(root) if file.is_relative_to(root) else file): file_hash(file)
        for file in others
    }
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git(folder, "rev-parse", "HEAD"),
        "dirty": bool(changes or untracked),
        "untracked": untracked,
    }


def reset_peak_memory() -> bool:
    """Begin to measure the process's peak memory anew; False where the system cannot."""
    try:
        PEAK_RESET.write_text("5")
    except OSError:
        return False
    return True


def peak_memory() -> int | None:
    """The most bytes in memory that the process had since ``reset_peak_memory``."""
    found = re.search(r"VmHWM:\s*(\d+) kB", PEAK.read_text())
    return int(found[1]) * 1024 if found else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            check=True,
            encoding="utf-8",
            errors="surrogateescape",  # as a path has what is in another encoding
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
