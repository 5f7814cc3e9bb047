"""Muon: momentum whose update of a matrix is brought to singular values near one.

Adam's update is mostly the few directions that all samples share; with singular values alike,
directions that few samples need are learnt at the same rate. Keller Jordan et al. 2024 (Muon), with
the scale of Liu et al. 2025 (arXiv 2502.16982), by which Adam's learning rates and decay serve.
What is no hidden matrix is AdamW's: kernels, encoder, head, biases, norms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.optimizer import Optimizer

# The quintic of Newton and Schulz with the steepest rise at zero that keeps values within 0.7 to
# 1.2 (Jordan et al.); five steps bring singular values from 0.002 of the norm upwards there.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
ADAM_RMS = 0.2  # of an entry of Adam's usual update, in learning rates (Liu et al. 2025)


def orthogonalize(matrices: Tensor) -> Tensor:
    """The polar factor of each matrix, roughly: singular values between 0.7 and 1.2.

    Args:
        matrices: (N, rows, columns), float32. On a GPU that has bfloat16 the products are taken in
            it, which the iteration forgives (Jordan et al. 2024).

    Returns:
        (N, rows, columns), float32; zero for zero.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # (N, short, long): the products are of the short side
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.to(torch.bfloat16 if x.is_cuda and torch.cuda.is_bf16_supported(False) else torch.float32)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (N, short, short)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon(Optimizer):
    """Muon for the groups that are ``orthogonal``, AdamW for the others.

    Like the fused optimizers of torch it leaves weights and state as they are where ``found_inf``,
    a tensor that the caller sets on it, is 1; it waits for nothing, and with rates that are tensors
    on the device it can be recorded in a CUDA graph.

    Args:
        groups: as ``parameter_groups`` makes them, each with a bool ``orthogonal``.
        lr: for groups without their own.
        betas: of AdamW; the first is the matrices' momentum as well.
        eps: of AdamW.
    """

    found_inf: Tensor | None = None

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "capturable": False}
        defaults["fused"] = True  # a state that is loaded has its steps on the device, then
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; what ``closure`` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["orthogonal"]:
                by_shape = defaultdict(list)
                for parameter in parameters:
                    by_shape[parameter.shape, parameter.device].append(parameter)
                for alike in by_shape.values():
                    self._update_matrices(alike, group)
            elif parameters:
                self._update_others(parameters, group)
        return loss

    def _update_matrices(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """Matrices of one shape (rows, columns), all at once."""
        for matrix in matrices:
            if not self.state[matrix]:
                self.state[matrix]["momentum"] = torch.zeros_like(matrix)
        momenta = [self.state[matrix]["momentum"] for matrix in matrices]
        gradients = torch.stack([matrix.grad for matrix in matrices if matrix.grad is not None])
        share = 1 - group["betas"][0]
        rate = group["lr"]
        if self.found_inf is not None:
            gradients = torch.where(self.found_inf > 0, torch.zeros_like(gradients), gradients)
            share, rate = share * (1 - self.found_inf), rate * (1 - self.found_inf)
        mean = torch.stack(momenta)
        mean = mean + share * (gradients - mean)
        update = orthogonalize(torch.lerp(gradients, mean, group["betas"][0]))  # Nesterov's
        rows, columns = matrices[0].shape
        update = ADAM_RMS * max(rows, columns) ** 0.5 * update
        for matrix, momentum, new, change in zip(matrices, momenta, mean, update, strict=True):
            momentum.copy_(new)
            matrix.sub_(rate * (change + group["weight_decay"] * matrix))

    def _update_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            capturable=group["capturable"],
            found_inf=self.found_inf,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
