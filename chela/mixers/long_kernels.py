"""Ways to parametrise a convolution kernel as long as the sequence.

Each is called with a length and returns (directions, D, length), the first taps of a kernel that
is built for ``max_length``: a tap does not depend on how far a batch happens to be padded. Given
``channels`` too, it makes the taps of these alone: a process may convolve some of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels.choice import Implementation
from chela.kernels.exponentials import exponential_sums
from chela.kernels.wavelet_tree import obstacle, wavelet_tree
from chela.mixers.stepping import Modes


def of_channels(x: Tensor, channels: slice | None, axis: int = 0) -> Tensor:
    """Some channels of x, which are its ``axis``; None: all."""
    if channels is None:
        return x
    return x.narrow(axis, channels.start, channels.stop - channels.start)


class LongKernel(nn.Module):
    """A kernel of ``max_length`` taps per channel and direction."""

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length

    def forward(self, length: int, channels: slice | None = None) -> Tensor:
        """The first ``length`` <= ``max_length`` taps, (directions, D, length).

        Args:
            length: how many.
            channels: a part of D; None: all of them.
        """
        raise NotImplementedError

    def modes(self) -> Modes | None:
        """The kernel of the first direction as a sum of exponentials; None if it is not one."""
        return None

    def kernel_parameters(self) -> Iterator[nn.Parameter]:
        """What the optimizer should train at the kernels' learning rate and without decay."""
        return self.parameters()


class MultiscaleKernel(LongKernel):
    """Few parameters, resolved finely near lag 0 and ever more coarsely far from it.

    The idea of SGConv (Li et al. 2023): sub-kernel i has ``taps`` parameters, is stretched by
    2^max(0, i-1) with linear interpolation and weighted by ``decay``^i; all are concatenated, which
    covers ``max_length`` with 1 + ceil(log2(max_length / taps)) sub-kernels. The whole is divided
    by its norm at initialisation, so that a channel's variance passes through unchanged, and is
    free afterwards. The norm runs over both directions together (our definition).
    """

    initial_norm: Tensor

    def __init__(self, dim: int, max_length: int, directions: int, taps: int, decay: float) -> None:
        super().__init__(max_length)
        taps = min(taps, max_length)
        scales = sub_kernels_to(max_length, taps)
        self.stretches = [2 ** max(0, i - 1) for i in range(scales)]
        self.weights = [decay**i for i in range(scales)]
        self.sub_kernels = nn.Parameter(torch.randn(scales, directions, dim, taps))
        self.register_buffer("initial_norm", torch.ones(dim, 1))
        with torch.no_grad():
            self.initial_norm.copy_(self(max_length).norm(dim=(0, 2))[:, None])

    def forward(self, length: int, channels: slice | None = None) -> Tensor:
        """The first ``length`` taps, (directions, D, length).

        Built from the sub-kernels that reach into them; a compiler builds all of them, so that it
        makes one program for every length.
        """
        scales = list(zip(self.sub_kernels, self.stretches, self.weights, strict=True))
        if not torch.compiler.is_compiling():
            scales = scales[: sub_kernels_to(length, self.sub_kernels.shape[-1])]
        pieces = [
            weight * stretched(of_channels(taps, channels, 1), stretch)
            for taps, stretch, weight in scales
        ]
        norm = of_channels(self.initial_norm, channels)
        return torch.cat(pieces, dim=-1).narrow(-1, 0, length) / norm


def sub_kernels_to(length: int, taps: int) -> int:
    """How many sub-kernels cover ``length`` taps: 1 + ceil(log2(length / taps))."""
    return 1 + ((length - 1) // taps).bit_length()


def stretched(taps: Tensor, factor: int) -> Tensor:
    """Taps (..., n) stretched to (..., n * factor) by linear interpolation.

    What ``F.interpolate(taps, scale_factor=factor, mode="linear")`` computes, in a form whose
    gradient is the same in every run: that of PyTorch's own is not on a GPU.
    """
    around = torch.cat([taps[..., :1], taps, taps[..., -1:]], dim=-1)[..., None]  # the ends go on
    place = (torch.arange(factor, device=taps.device, dtype=taps.dtype) + 0.5) / factor - 0.5
    before, after = (-place).clamp(min=0), place.clamp(min=0)  # weights of the neighbours
    left, own, right = around[..., :-2, :], around[..., 1:-1, :], around[..., 2:, :]  # (..., n, 1)
    return (before * left + (1 - before - after) * own + after * right).flatten(-2)


class CosineKernel(LongKernel):
    """A short cosine series on a window that fades out: smooth by construction, and linear.

        K(l) = sum_m c_m phi_m(l),   phi_m(l) = cos^2(pi l / 2 w) cos(pi m (l + 1/2) / w),  l < w

    Each phi is scaled to one norm, such that a kernel's is about 1 at initialisation, where c is
    standard normal. Channels come in groups of one window w each, log-uniform from ``window_min``
    to ``window_max``: a window of no more tokens than terms is free in its shape, a longer one is
    a low-pass. Nothing is learned but c, and building all kernels is one matrix product.

    Our definition. Sub-kernels of growing length with as many parameters each are SGConv's idea (Li
    et al. 2023); what its free taps lack beside a state space is smoothness.

    Args:
        dim: channels D.
        max_length: L, the longest batch.
        directions: 1 or 2.
        terms: M, coefficients per channel and direction.
        window_min: tokens of the shortest window.
        window_max: tokens of the longest; None: ``max_length``.
    """

    GROUPS = 16  # windows: neighbours differ by a quarter at 32 to 1,024

    series: Tensor

    def __init__(
        self,
        dim: int,
        max_length: int,
        directions: int,
        terms: int,
        window_min: int,
        window_max: int | None,
    ) -> None:
        super().__init__(max_length)
        self.per_group = -(-dim // self.GROUPS)
        groups = -(-dim // self.per_group)
        longest = max_length if window_max is None else window_max
        shortest = min(window_min, longest)
        place = torch.linspace(0, 1, groups, dtype=torch.float64)[:, None, None]
        window = shortest * (longest / shortest) ** place  # (G, 1, 1)
        lags = torch.arange(max_length, dtype=torch.float64)
        m = torch.arange(terms, dtype=torch.float64)[:, None]
        fade = (math.pi / 2 * (lags / window).clamp(max=1)).cos().square()
        series = fade * (math.pi * m * (lags + 0.5) / window).cos()  # (G, M, L)
        # A term that a short window cannot tell from 0 stays small instead of being blown up.
        series = series / series.norm(dim=-1, keepdim=True).clamp(min=1e-3)
        series = series * (directions * terms) ** -0.5
        self.register_buffer("series", series.to(torch.get_default_dtype()), persistent=False)
        self.coefficients = nn.Parameter(torch.randn(directions, dim, terms))

    def forward(self, length: int, channels: slice | None = None) -> Tensor:
        """The first ``length`` taps, (directions, D, length)."""
        directions, dim, terms = self.coefficients.shape
        groups = self.series.shape[0]
        c = F.pad(self.coefficients, (0, 0, 0, groups * self.per_group - dim))
        c = c.view(directions, groups, self.per_group, terms)
        mine = channels or slice(0, dim)
        first, last = mine.start // self.per_group, -(-mine.stop // self.per_group)
        taps = (c[:, first:last] @ self.series[first:last, :, :length]).flatten(1, 2)
        return taps[:, mine.start - first * self.per_group :][:, : mine.stop - mine.start]

    def kernel_parameters(self) -> Iterator[nn.Parameter]:
        """None: coefficients are trained like a weight matrix, as a state space's C."""
        yield from ()


class WaveletKernel(LongKernel):
    """A tree of ever wider filters that are the same at each scale, and a weight for each scale.

    ``chela.kernels.wavelet_tree`` has the formula. Two filters of ``taps`` taps, a low-pass and a
    high-pass, are learned per channel and direction; J scales cover ``max_length``: 2 taps + J + 1
    parameters.

    The multiresolution memory of Shi et al. (2023), whose convolutions we make one kernel of. At
    initialisation both filters have norm 1, and so has a kernel, on average (our definition).
    """

    operation = "wavelet_tree"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it

    def __init__(self, dim: int, max_length: int, directions: int, taps: int) -> None:
        super().__init__(max_length)
        scales = max(1, (-(-(max_length - 1) // (taps - 1))).bit_length())
        filters = torch.randn(2, directions, dim, taps)
        self.filters = nn.Parameter(filters / filters.norm(dim=-1, keepdim=True))  # h, g
        deviation = (directions * (scales + 1)) ** -0.5
        self.weights = nn.Parameter(torch.randn(directions, dim, scales + 1) * deviation)

    def forward(self, length: int, channels: slice | None = None) -> Tensor:
        """The first ``length`` taps, (directions, D, length): each hangs on all scales.

        In plain PyTorch all are built whatever the length, as those of a state space are.
        """
        tree = of_channels(self.filters, channels, 2), of_channels(self.weights, channels, 1)
        if self.implementation == "triton":
            return wavelet_tree(*tree, length, implementation="triton")
        return wavelet_tree(*tree, self.max_length).narrow(-1, 0, length)

    def kernel_obstacle(self) -> str | None:
        """Why the Triton kernels do not serve its filters; None: they do."""
        return obstacle(self.filters.shape[-1])

    def kernel_parameters(self) -> Iterator[nn.Parameter]:
        """The filters, of which J follow each other; the weights are trained as a matrix is."""
        yield self.filters


class ExplicitKernel(LongKernel):
    """One parameter per tap, kept smooth by soft-thresholding and dropout (Fu et al. 2023).

    The threshold is in units of the taps' initial standard deviation, so that one value suits all
    lengths (our definition; Fu et al. tune an absolute one).
    """

    def __init__(
        self, dim: int, max_length: int, directions: int, soft_threshold: float, dropout: float
    ) -> None:
        super().__init__(max_length)
        deviation = (directions * max_length) ** -0.5  # the whole kernel has a norm of about 1
        self.threshold = soft_threshold * deviation
        self.dropout = dropout
        self.taps = nn.Parameter(torch.randn(directions, dim, max_length) * deviation)

    def forward(self, length: int, channels: slice | None = None) -> Tensor:
        """The first ``length`` taps, shrunk towards 0; in training some are dropped."""
        taps = of_channels(self.taps, channels, 1).narrow(-1, 0, length)
        shrunk = F.softshrink(taps, self.threshold)
        return F.dropout(shrunk, self.dropout, self.training)


class EMAKernel(LongKernel):
    """A sum of damped exponentials per channel: Mega's multi-dimensional damped EMA as a kernel.

    Mega (Ma et al. 2023) defines h_t = alpha * beta x_t + (1 - alpha * delta) * h_{t-1} and
    y_t = eta . h_t per channel, which is the kernel sum_n eta alpha beta (1 - alpha delta)^l.
    alpha and delta lie in (0, 1) through a sigmoid; initial values and the factor 1 / sqrt(N) are
    those of Mega's published code.
    """

    operation = "exponential_sums"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it

    def __init__(self, dim: int, max_length: int, directions: int, ema_dim: int) -> None:
        super().__init__(max_length)
        shape = (directions, dim, ema_dim)
        signs = torch.tensor([1.0, -1.0]).repeat((ema_dim + 1) // 2)[:ema_dim]
        self.alpha = nn.Parameter(0.2 * torch.randn(shape))
        self.delta = nn.Parameter(0.2 * torch.randn(shape))
        self.beta = nn.Parameter(0.02 * torch.randn(shape) + signs)
        self.eta = nn.Parameter(torch.randn(shape))

    def forward(self, length: int, channels: slice | None = None) -> Tensor:
        """The first ``length`` taps, (directions, D, length)."""
        exponentials = (of_channels(each, channels, 1) for each in self._exponentials())
        log_decay, amplitudes = (each.flatten(0, 1) for each in exponentials)
        still = torch.zeros_like(log_decay)  # none oscillates
        modes = log_decay, still, amplitudes[None], still[None]
        taps = exponential_sums(*modes, length, implementation=self.implementation)
        return taps.view(len(self.alpha), -1, length)

    def modes(self) -> Modes:
        """The damped exponentials themselves."""
        log_decay, amplitudes = self._exponentials()
        return Modes(log_decay[0], amplitudes[0])

    def _exponentials(self) -> tuple[Tensor, Tensor]:
        """Logarithms of the decays, and amplitudes, (directions, D, N) each."""
        alpha = self.alpha.sigmoid()  # (directions, D, N)
        # Short of 1, since a saturated sigmoid would make 0 * log(0) at lag 0.
        log_decay = torch.log1p(-(alpha * self.delta.sigmoid()).clamp(max=1 - 1e-6))
        return log_decay, alpha * self.beta * self.eta * alpha.shape[-1] ** -0.5
