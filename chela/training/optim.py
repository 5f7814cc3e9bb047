"""Which parameters learn how fast: the optimizer's groups and the schedule over the run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from chela.config.settings import OptimizerConfig, ScheduleConfig
from chela.errors import ConfigError
from chela.training.distributed import skip_together
from chela.training.muon import Muon


@runtime_checkable
class OwnsKernels(Protocol):
    """A module whose long kernels are trained apart from the rest."""

    def kernel_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that get ``kernel_lr`` and no decay."""


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """The three groups: kernels, matrices and the rest; with Muon a fourth, hidden matrices.

    Kernels are what a module hands out by ``kernel_parameters()``: a learning rate of their own and
    no decay, since decay would shorten the model's memory (SGConv and the S4 family do the same).
    Matrices (two dimensions or more) decay; biases, norms, gains and shifts do not. Muon's are the
    weights of linear maps inside of blocks: short kernels, encoder and head are not its own.

    Args:
        model: any module; parameters that need no gradient are left out.
        config: the rates and the decay.

    Returns:
        Groups for a torch optimizer, each with a ``name``; empty ones are left out.
    """
    kernels = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, OwnsKernels)
        for parameter in module.kernel_parameters()
    }
    hidden = {id(weight) for weight in _hidden_matrices(model)} if config.name == "muon" else set()
    groups: dict[str, dict[str, Any]] = {
        "hidden": {"params": [], "lr": config.lr, "weight_decay": config.weight_decay},
        "kernels": {"params": [], "lr": config.kernel_lr, "weight_decay": 0.0},
        "matrices": {"params": [], "lr": config.lr, "weight_decay": config.weight_decay},
        "others": {"params": [], "lr": config.lr, "weight_decay": 0.0},
    }
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in kernels:
            name = "kernels"
        elif id(parameter) in hidden:
            name = "hidden"
        else:
            name = "matrices" if parameter.ndim >= 2 else "others"
        groups[name]["params"].append(parameter)
    return [{"name": name, **group} for name, group in groups.items() if group["params"]]


def _hidden_matrices(model: nn.Module) -> Iterator[Tensor]:
    """Of the linear maps inside of a backbone's ``blocks``, which go from streams to streams."""
    for owner in model.modules():
        blocks = getattr(owner, "blocks", None)  # no protocol: isinstance sees no submodules
        if isinstance(blocks, nn.ModuleList):
            for module in blocks.modules():
                if isinstance(module, nn.Linear):
                    yield module.weight


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The named optimizer over ``parameter_groups``, in a form that can skip a step.

    Raises:
        ConfigError: Muon, but no matrix would be its own.
    """
    groups = parameter_groups(model, config)
    if config.name == "muon":
        if groups[0]["name"] != "hidden":
            raise ConfigError("optimizer=muon, but no block has a linear map; try optimizer=adamw")
        groups = [{**group, "orthogonal": group["name"] == "hidden"} for group in groups]
        return Muon(groups, config.lr, (config.betas[0], config.betas[1]), config.eps)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    optimizer = kind(
        groups,
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        fused=True,
    )
    optimizer.register_step_pre_hook(skip_together)
    return optimizer


def follow_the_device(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Let a CUDA graph of ``optimizer.step`` read its learning rates where it is replayed.

    A schedule then sets them there, without the host waiting.
    """
    for group in optimizer.param_groups:
        group["capturable"] = True
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)


def states(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, str, Tensor]]:
    """Each tensor of an optimizer's state: the parameter that it is of, its name, itself."""
    for owner, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                yield owner, name, value


def portable(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state as it is without ``follow_the_device``: for any device."""
    groups = [
        {**group, "capturable": False, "lr": float(group["lr"])} for group in state["param_groups"]
    ]
    return {**state, "param_groups": groups}


def learning_rate_factor(step: int, total_steps: int, config: ScheduleConfig) -> float:
    """The factor on every group's learning rate at optimizer step ``step`` (0 is the first).

    The warm-up rises linearly and reaches 1 at its last step; the rest of the run falls from 1 to
    ``final_ratio``, on a line or on half a cosine.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    progress = min(progress, 1.0)
    if config.name == "constant":
        return 1.0
    fall = 1 - progress if config.name == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.final_ratio + (1 - config.final_ratio) * fall


def build_schedule(
    optimizer: torch.optim.Optimizer, total_steps: int, config: ScheduleConfig
) -> LambdaLR:
    """``learning_rate_factor`` as a torch scheduler, to be stepped once per optimizer step."""
    return LambdaLR(optimizer, lambda step: learning_rate_factor(step, total_steps, config))
