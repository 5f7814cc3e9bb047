"""Which implementation of the operations runs on a device, and telling a model's modules so."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, Literal

import torch
from torch import nn

Implementation = Literal["torch", "triton"]
Asked = Literal["auto", "triton", "torch"]


def choose(asked: Asked, device: torch.device | str) -> Implementation:
    """What ``asked`` means on ``device``.

    Args:
        asked: ``auto`` takes the Triton kernels on every GPU that can run them and plain PyTorch
            elsewhere; the two others are taken at their word. With TRITON_INTERPRET=1 in the
            environment ``triton`` runs on a CPU as well, interpreted: for tests, not for use.
        device: where the tensors will be.

    Raises:
        ValueError: ``triton`` was asked for where it cannot run; the message says why.
    """
    if asked == "torch":
        return "torch"
    device = torch.device(device)
    obstacle = _obstacle(device)
    if asked == "auto":
        return "triton" if device.type == "cuda" and obstacle is None else "torch"
    if obstacle is not None:
        raise ValueError(f"kernels=triton, but {obstacle}; use kernels=auto or kernels=torch")
    return "triton"


def use_kernels(model: nn.Module, asked: Asked, device: torch.device | str) -> None:
    """Set ``implementation`` on every module of ``model`` whose operation has Triton kernels.

    Args:
        model: its modules declare ``operation`` and ``implementation``, and ``has_triton = True``
            where there is a choice.
        asked: see ``choose``; ``auto`` leaves a module on plain PyTorch whose ``kernel_obstacle()``
            says why its kernels cannot serve it, such as very wide heads, or whose
            ``kernel_drawback()`` says why they are not to be preferred; ``triton`` takes them.
        device: where the model will compute.

    Raises:
        ValueError: see ``choose``; or ``triton`` was asked for, and a module has such an obstacle.
    """
    implementation = choose(asked, device)
    module: Any
    for module in model.modules():
        if not getattr(module, "has_triton", False):
            continue
        obstacle = module.kernel_obstacle() if hasattr(module, "kernel_obstacle") else None
        drawback = module.kernel_drawback() if hasattr(module, "kernel_drawback") else None
        if obstacle is not None and asked == "triton":
            raise ValueError(f"kernels=triton, but {module.operation}: {obstacle}")
        avoided = obstacle is not None or (drawback is not None and asked == "auto")
        module.implementation = "torch" if avoided else implementation


def _obstacle(device: torch.device) -> str | None:
    """Why Triton cannot run on ``device``, None where it can."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (it exists for Linux)"
    if device.type == "cpu":
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        return None if interpreted else "the device is a CPU"
    if device.type != "cuda":
        return f"the device is {device.type}"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:  # bfloat16 on tensor cores begins with Ampere
        return f"the GPU's compute capability is {major}.{minor}, and the kernels need 8.0"
    return None
