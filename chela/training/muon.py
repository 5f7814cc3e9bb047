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

from chela.training.distributed import skip_together

# The quintic of Newton and Schulz with the steepest rise at zero that keeps values within 0.7 to
# 1.2 (Jordan et al.); five steps bring singular values from 0.002 of the norm upwards there.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
LARGEST = 1.3  # singular value that an update can have; the iteration blows up beyond 1.26
ADAM_RMS = 0.2  # of an entry of Adam's usual update, in learning rates (Liu et al. 2025)


def orthogonalize(matrices: Tensor) -> Tensor:
    """The polar factor of each matrix, roughly: singular values between 0.7 and 1.2.

    Args:
        matrices: (N, rows, columns), rather wide than tall: the products are of the rows. Rows and
            columns of zeros stay zero, and change nothing of the rest.

    Returns:
        (N, rows, columns); zero for zero. In bfloat16 on a GPU that has it, which the iteration
        forgives (Jordan et al. 2024).
    """
    x = matrices / (torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True) + 1e-7)
    if x.is_cuda and torch.cuda.is_bf16_supported(False):
        x = x.bfloat16()
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (N, rows, rows)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class _Stack:
    """Matrices of several shapes as one tensor, so that an update launches for all what it would
    for one.

    Each lies on its long side in the corner of a plane of (N, short, long); the rest is zero.

    Args:
        matrices: on one device.
    """

    def __init__(self, matrices: list[Tensor]) -> None:
        self.by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            self.by_shape[matrix.shape].append(matrix)
        self.matrices = [matrix for alike in self.by_shape.values() for matrix in alike]
        short, long = (max(side(each) for each in self.by_shape) for side in (min, max))
        self.gradients = matrices[0].new_zeros(len(matrices), short, long)
        self.momenta = torch.zeros_like(self.gradients)
        self.momentum = [each for part in self.parts(self.momenta) for each in part.unbind()]
        scales = [ADAM_RMS * max(matrix.shape) ** 0.5 for matrix in self.matrices]
        self.scales = matrices[0].new_tensor(scales)[:, None, None]  # (N, 1, 1)
        limits = [LARGEST * min(matrix.shape) ** 0.5 for matrix in self.matrices]
        self.limits = matrices[0].new_tensor(limits)  # (N,) no update's norm is above

    def parts(self, whole: Tensor) -> list[Tensor]:
        """Of (N, short, long) the matrices (n, rows, columns) of each shape."""
        sizes = [len(alike) for alike in self.by_shape.values()]
        return [
            part[:, :rows, :columns] if rows <= columns else part[:, :columns, :rows].mT
            for part, (rows, columns) in zip(whole.split(sizes), self.by_shape, strict=True)
        ]

    def gather(self) -> Tensor:
        """The gradients (N, short, long)."""
        for part, alike in zip(self.parts(self.gradients), self.by_shape.values(), strict=True):
            part.copy_(torch.stack([each.grad for each in alike if each.grad is not None]))
        return self.gradients

    def scatter(self, whole: Tensor) -> list[Tensor]:
        """Of (N, short, long) one tensor like each of ``matrices``."""
        return [each for part in self.parts(whole) for each in part.contiguous().unbind()]


class Muon(Optimizer):
    """Muon for the groups that are ``orthogonal``, AdamW for the others.

    Like the fused optimizers of torch it leaves weights and state as they are where ``found_inf``,
    a tensor that the caller sets on it, is 1; it waits for nothing, and with rates that are tensors
    on the device it can be recorded in a CUDA graph. It sets ``found_inf`` itself where an update
    is none that its iteration can give: one wrong number in a product there, as a machine at fault
    computes it, grows by powers of five and would leave a matrix of 1e20 behind a finite gradient.
    Of several processes all leave out what one has got wrong.

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
        self._stacks: dict[tuple[int, ...], _Stack] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy; and a state that is loaded."""
        super().__setstate__(state)
        self._stacks = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; what ``closure`` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = [(g, [p for p in g["params"] if p.grad is not None]) for g in self.param_groups]
        groups = [(group, parameters) for group, parameters in groups if parameters]
        hidden = [(group, self._stack(some)) for group, some in groups if group["orthogonal"]]
        # all of them before anything changes: a step is whole or none
        updates = [self._update_of(stack, group["betas"][0]) for group, stack in hidden]
        skip_together(self)
        for (group, stack), update in zip(hidden, updates, strict=True):
            self._update_matrices(stack, *update, group)
        for group, parameters in groups:
            if not group["orthogonal"]:
                self._update_others(parameters, group)
        return loss

    def _update_of(self, stack: _Stack, momentum: float) -> tuple[Tensor, Tensor]:
        """The next momenta and the updates (N, short, long), which are judged by their size."""
        gradients = stack.gather()
        momenta = stack.momenta.lerp(gradients, 1 - momentum)
        update = orthogonalize(gradients.lerp_(momenta, momentum))  # Nesterov's
        if self.found_inf is not None:
            size = torch.linalg.vector_norm(update, dim=(1, 2), dtype=stack.limits.dtype)
            possible = (size <= stack.limits).all()  # no NaN is
            self.found_inf = torch.where(possible, self.found_inf, 1.0)
        return momenta, update

    def _update_matrices(
        self, stack: _Stack, momenta: Tensor, update: Tensor, group: dict[str, Any]
    ) -> None:
        rate = group["lr"]
        if self.found_inf is None:
            stack.momenta.copy_(momenta)
        else:
            bad = self.found_inf > 0
            torch.where(bad, stack.momenta, momenta, out=stack.momenta)
            update = update.masked_fill(bad, 0)  # as NaN times 0 is NaN
            rate = rate * (1 - self.found_inf)
        changes = stack.scatter(update * (rate * stack.scales))
        torch._foreach_mul_(stack.matrices, 1 - rate * group["weight_decay"])
        torch._foreach_sub_(stack.matrices, changes)

    def _stack(self, matrices: list[Tensor]) -> _Stack:
        """Of these matrices, at the same address in every step; their states are parts of it."""
        key = tuple(map(id, matrices))
        if key not in self._stacks:
            self._stacks[key] = _Stack(matrices)
        stack = self._stacks[key]
        for matrix, momentum in zip(stack.matrices, stack.momentum, strict=True):
            known = self.state[matrix].get("momentum")
            if known is not momentum:  # new, loaded or moved
                momentum.copy_(torch.zeros_like(momentum) if known is None else known)
                self.state[matrix]["momentum"] = momentum
        return stack

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
