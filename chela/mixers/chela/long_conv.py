"""The long stage: parallel linear convolutions that fold into a single one.

In training a long kernel and some short ones run side by side, each with a scale or a BatchNorm of
its own, beside a skip: easier to train than their sum alone. All are linear in the input, so they
are one kernel and one bias for inference (structural re-parameterisation; the choice of branches
is our definition). Without BatchNorm the sum is taken before convolving in training, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels.precision import without_autocast
from chela.layers.norms import BatchNorm
from chela.layers.sequence import own_channels
from chela.mixers.chela.choices import BranchNorm
from chela.mixers.convolving import LongConvModule
from chela.mixers.long_kernels import LongKernel, of_channels
from chela.mixers.over_shares import Shares, convolve_short, short_obstacle
from chela.mixers.stepping import Filter, FilterState, Modes, causal_only


class ChannelScale(nn.Module):
    """A factor per channel, behind the interface of a branch's BatchNorm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scale x (B, L, D)."""
        return x * self.weight.to(x.dtype)

    def scale_and_shift(self) -> tuple[Tensor, None]:
        """The factor (D,); there is no shift."""
        return self.weight, None


class LongStage(LongConvModule):
    """What both forms of the stage share: how it goes on a token at a time."""

    causal: bool

    def filter(self) -> Filter:
        """The stage in evaluation, as it is applied to one token."""
        raise NotImplementedError

    def prefill(
        self, s: Tensor, mask: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, FilterState]:
        """``forward``, and the state behind each true length; in evaluation."""
        causal_only(self)
        return self(s, mask), self.filter().begin(s, lengths)

    def step(self, s: Tensor, state: FilterState) -> tuple[Tensor, FilterState]:
        """One more token (B, 1, D) of each sequence."""
        return state.filter.step(s, state)


class LongConv(LongStage):
    """z = sum over branches of norm_b(conv_b(s)) + skip * s.

    Args:
        kernel: the long branch's parametrisation, 1 direction if causal, else 2.
        dim: channels D.
        causal: short branches start at lag 0; else they are centred on it.
        branch_widths: the short branches' widths; none is allowed.
        branch_norm: each branch's own ``none`` (a scale per channel) or ``batch`` (BatchNorm).

    Raises:
        ValueError: a short branch cannot be centred.
    """

    def __init__(
        self,
        kernel: LongKernel,
        dim: int,
        causal: bool,
        branch_widths: Sequence[int],
        branch_norm: BranchNorm,
    ) -> None:
        super().__init__(kernel.max_length)
        even = [width for width in branch_widths if width % 2 == 0]
        if even and not causal:
            raise ValueError(
                f"branch_widths has {even}: centred branches need odd widths, "
                f"e.g. {[width + 1 for width in even]}, or set causal=true"
            )
        self.causal = causal
        self.kernel = kernel
        self.branches = nn.ParameterList(
            torch.empty(dim, width).uniform_(-(width**-0.5), width**-0.5)  # as PyTorch's convs
            for width in branch_widths
        )
        make_norm = BatchNorm if branch_norm == "batch" else ChannelScale
        self.norms = nn.ModuleList(make_norm(dim) for _ in range(1 + len(branch_widths)))
        self.sums_branches_first = branch_norm == "none"
        self.skip = nn.Parameter(torch.ones(dim))  # the stage starts near the identity

    def forward(self, s: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolve s (B, L, D), which must be zero at padded positions; so is not the output.

        Args:
            s: the input.
            mask: (B, L), true at real positions; None when nothing is padded.

        Raises:
            ValueError: L exceeds the kernel's max_length.
        """
        if self.training and not self.sums_branches_first:
            return self.unmerged(s, mask)
        length = self.checked_length(s)
        mine = own_channels(s.shape[-1])
        kernel, bias = self.merged(length, mine)
        return self.convolved(s, kernel, bias=bias)

    def split_obstacle(self) -> str | None:
        """Why its tokens cannot be those of several devices, and what to do; None: they can."""
        if self.sums_branches_first:
            return None
        widths = [taps.shape[1] for taps in self.branches]
        return next(filter(None, (short_obstacle(each, self.causal) for each in widths)), None)

    def least_exchange(self, shares: Shares) -> int:
        """Bytes that the devices of ``shares`` send at least, forward."""
        dim = len(self.skip)
        apart = 0
        if not self.sums_branches_first:
            apart = sum(shares.halos(taps.shape[1], dim) for taps in self.branches)
        return shares.channels(dim, self.causal) + apart

    def unmerged(self, s: Tensor, mask: Tensor | None = None) -> Tensor:
        """The same, branch by branch: what the definition says, and BatchNorm needs to train."""
        length, mine = self.checked_length(s), own_channels(s.shape[-1])
        with without_autocast(s):
            long = self.kernel(length, mine)
        outputs = [self.convolved(s, long)]
        outputs += [
            convolve_short(s, taps, causal=self.causal, implementation=self.implementation)
            for taps in self.branches
        ]
        z = s * self.skip.to(s.dtype)
        for norm, output in zip(self.norms, outputs, strict=True):
            z = z + norm(output, mask)
        return z

    def merged(self, length: int, channels: slice | None = None) -> tuple[Tensor, Tensor | None]:
        """All branches and the skip as one kernel (directions, D, length) and one bias (D,).

        BatchNorms count with their running statistics, as in evaluation; without any there is no
        bias.

        Args:
            length: how many taps.
            channels: some of D; None: all.
        """
        with without_autocast(self.skip):
            long = self.kernel(length, channels)
            kernel, _, bias = self._beside(length, long, channels)
            return kernel, bias

    def filter(self) -> Filter:
        """The stage in evaluation, as it is applied to one token."""
        with without_autocast(self.skip):
            modes = self.kernel.modes()
            if modes is None:
                kernel, bias = self.merged(self.max_length)
                return Filter(kernel[0], bias)
            beside, scale, bias = self._beside(max([1, *(each.shape[1] for each in self.branches)]))
            return Filter(beside[0], bias, Modes(modes.log_decay, scale * modes.amplitude))

    def _beside(
        self, length: int, long_kernel: Tensor | None = None, channels: slice | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What is beside the long kernel: the kernel (directions, D, length) of skip and branches.

        And the factor (D, 1) of the long kernel, and the bias (D,) of all. A ``long_kernel`` is
        added where it always was, behind the skip: another order is another rounding.
        """
        kernel = self._as_long(of_channels(self.skip, channels)[:, None], length)
        norms = [cast("ChannelScale | BatchNorm", norm) for norm in self.norms]
        affine = [norm.scale_and_shift() for norm in norms]
        long, *short = [of_channels(scale, channels)[:, None] for scale, _ in affine]  # (D, 1)
        if long_kernel is not None:
            kernel = kernel + long * long_kernel
        for scale, taps in zip(short, self.branches, strict=True):
            kernel = kernel + self._as_long(scale * of_channels(taps, channels), length)
        biases = [of_channels(shift, channels) for _, shift in affine if shift is not None]
        return kernel, long, torch.stack(biases).sum(0) if biases else None

    def fold(self) -> FoldedLongConv:
        """The stage in evaluation as constants: one kernel and one bias, nothing to train."""
        self.eval()
        with torch.no_grad():
            folded = FoldedLongConv(*self.merged(self.kernel.max_length))
        folded.implementation = self.implementation
        return folded

    def _as_long(self, taps: Tensor, length: int) -> Tensor:
        """A short branch's taps (D, width) as a long kernel; taps that L cuts off are unused."""
        offset = 0 if self.causal else (taps.shape[1] - 1) // 2
        sides = [taps[:, offset:]]  # lags 0, 1, ...
        if not self.causal:
            sides.append(taps[:, :offset].flip(-1))  # lags -1, -2, ...
        return torch.stack([F.pad(side, (0, length - side.shape[1])) for side in sides])


class FoldedLongConv(LongStage):
    """What a trained ``LongConv`` is in inference; behind the same interface."""

    kernel: Tensor
    bias: Tensor | None

    def __init__(self, kernel: Tensor, bias: Tensor | None) -> None:
        super().__init__(kernel.shape[-1])
        self.causal = len(kernel) == 1
        self.register_buffer("kernel", kernel)  # (directions, D, max_length)
        self.register_buffer("bias", bias)  # (D,)

    def forward(self, s: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolve s (B, L, D), zero at padded positions."""
        length, mine = self.checked_length(s), own_channels(s.shape[-1])
        kernel = of_channels(self.kernel, mine, 1)[..., :length]
        bias = None if self.bias is None else of_channels(self.bias, mine)
        return self.convolved(s, kernel, bias=bias)

    def filter(self) -> Filter:
        """The stage, as it is applied to one token: all taps of its kernel."""
        return Filter(self.kernel[0], self.bias)
