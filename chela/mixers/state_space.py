"""A diagonal state space's response to an impulse, as a long kernel (S4D, Gu et al. 2022).

Each channel has N complex states h' = A h + x, y = 2 Re(C h), with diagonal A; discretised with a
step dt it is a convolution with the kernel

    K_l = 2 Re sum_n C_n B_n exp(l s_n)
        zero-order hold:  s = dt A,                              B = (exp(dt A) - 1) / A
        bilinear:         s = log((1 + dt A / 2) / (1 - dt A / 2)),  B = dt / (1 - dt A / 2)

Decaying oscillations: smooth, and yet able to tell the pixel above from its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from chela.kernels.choice import Implementation
from chela.kernels.exponentials import exponential_sums
from chela.mixers.long_kernels import LongKernel, of_channels
from chela.mixers.stepping import Modes


@dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class StateSpaceConfig:
    """The choices of a state space."""

    state_dim: Annotated[int, Gt(1)] = 64  # real states; half as many conjugate pairs, as in S4
    # Of A: -1/2 + i pi n (lin), or S4's spectrum in the limit (inv). Lin is the simpler and, by
    # Gu et al., as good on LRA but for Path-X.
    init: Literal["lin", "inv"] = "lin"
    discretization: Literal["zoh", "bilinear"] = "zoh"  # S4D's; bilinear is S4's
    dt_min: PositiveFloat = 1e-3  # 1 / dt tokens is what a channel remembers first
    dt_max: PositiveFloat = 1e-1  # log-uniform in between, as in S4

    def __post_init__(self) -> None:
        if self.state_dim % 2:
            raise ValueError(
                f"state_dim={self.state_dim} is odd, but states come in conjugate pairs; "
                f"set state_dim={self.state_dim + 1}"
            )
        if self.dt_min > self.dt_max:
            raise ValueError(
                f"dt_min={self.dt_min} exceeds dt_max={self.dt_max}; set dt_min <= dt_max"
            )


class StateSpaceKernel(LongKernel):
    """The kernel K above, (directions, D, length); directions share A and dt, as in S4.

    B is 1 and not trained: only its product with C matters. All but the taps is in real numbers,
    which a compiler makes one kernel of; of complex ones it makes none.
    """

    operation = "exponential_sums"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it

    def __init__(
        self, dim: int, max_length: int, directions: int, config: StateSpaceConfig
    ) -> None:
        super().__init__(max_length)
        pairs = config.state_dim // 2
        self.discretization = config.discretization
        low, high = math.log(config.dt_min), math.log(config.dt_max)
        self.log_dt = nn.Parameter(torch.empty(dim, 1).uniform_(low, high))
        self.log_decay = nn.Parameter(torch.full((dim, pairs), math.log(0.5)))  # Re A = -1/2
        self.frequency = nn.Parameter(initial_frequencies(config.init, pairs).repeat(dim, 1))
        # Complex normal with variance 1, as real and imaginary parts.
        self.readout = nn.Parameter(0.5**0.5 * torch.randn(directions, dim, pairs, 2))

    def forward(self, length: int, channels: slice | None = None) -> Tensor:
        """The first ``length`` taps, (directions, D, length).

        In plain PyTorch all are computed whatever the length, so that a compiler makes one program
        for every length; of an operator it need not know the length.
        """
        built = length if self.implementation == "triton" else self.max_length
        rate, angle, real, imag = self._modes()
        taps = exponential_sums(
            of_channels(rate, channels),
            of_channels(angle, channels),
            of_channels(real, channels, 1),
            of_channels(imag, channels, 1),
            built,
            implementation=self.implementation,
        )
        return taps.narrow(-1, 0, length)

    def modes(self) -> Modes:
        """The states themselves, of which the kernel is the response to an impulse."""
        rate, angle, real, imag = self._modes()
        return Modes(torch.complex(rate, angle), torch.complex(real[0], imag[0]))

    def kernel_parameters(self) -> Iterator[nn.Parameter]:
        """dt and A; C is trained like a weight matrix (S4's code does the same)."""
        yield from (self.log_dt, self.log_decay, self.frequency)

    def _modes(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """s (D, N) and 2 C B (directions, D, N), real and imaginary part of each."""
        x, y = -self.log_decay.exp(), self.frequency  # A
        dt = self.log_dt.exp()  # (D, 1)
        if self.discretization == "bilinear":
            p, q = 0.5 * dt * x, 0.5 * dt * y  # h = dt A / 2
            below = (1 - p).square() + q.square()  # |1 - h|^2
            rate = 0.5 * torch.log1p(4 * p / below)  # of |1 + h|^2 / |1 - h|^2
            angle = torch.atan2(2 * q, 1 - p.square() - q.square())
            b, c = dt * (1 - p) / below, dt * q / below  # B
        else:
            rate, angle = dt * x, dt * y
            # exp(s) - 1 without cancellation
            u = rate.expm1() * angle.cos() - 2 * (0.5 * angle).sin().square()
            v = rate.exp() * angle.sin()
            size = x.square() + y.square()
            b, c = (u * x + v * y) / size, (v * x - u * y) / size
        real, imag = self.readout.unbind(-1)  # C
        return rate, angle, 2 * (real * b - imag * c), 2 * (real * c + imag * b)


def initial_frequencies(init: Literal["lin", "inv"], pairs: int) -> Tensor:
    """Im A at initialisation, (pairs,): Gu et al. 2022, equations of S4D-Lin and S4D-Inv.

    Args:
        init: ``lin``: pi n. ``inv``: (N / pi) (N / (2 n + 1) - 1), with N = 2 pairs.
        pairs: how many conjugate pairs of states.
    """
    n = torch.arange(pairs, dtype=torch.float64)
    if init == "lin":
        return (math.pi * n).to(torch.get_default_dtype())
    states = 2 * pairs
    return (states / math.pi * (states / (2 * n + 1) - 1)).to(torch.get_default_dtype())
