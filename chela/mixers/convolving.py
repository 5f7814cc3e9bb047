"""What the mixers with a long convolution share: how it is computed, and S4's block around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels import long_conv, zero_padding
from chela.kernels.choice import Implementation
from chela.kernels.precision import without_autocast
from chela.layers.basic import Dropout, compute_dtype, linear
from chela.layers.sequence import own_channels, parts, share
from chela.mixers.long_kernels import LongKernel, of_channels
from chela.mixers.over_shares import Shares, convolve_long
from chela.mixers.stepping import Filter, FilterState, causal_only


class LongConvModule(nn.Module):
    """What every module with a long convolution shares: how it is computed, how long it may be.

    Args:
        max_length: the longest batch it is built for.
    """

    operation = "long_conv"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length

    def implementation_in(self, dtype: torch.dtype) -> str:
        """What computes in ``dtype``: the kernels leave float32 and the longest to the FFT."""
        if self.implementation == "torch":
            return "torch"
        found = long_conv.scheme(self.max_length, dtype)
        return "torch (fft)" if found == "fft" else f"triton ({found})"

    def split_obstacle(self) -> str | None:
        """Why its tokens cannot be those of several devices, and what to do; None: they can."""
        return None

    def checked_length(self, s: Tensor) -> int:
        """The length L of the sequences of which s (B, l, D) is this process's share.

        Raises:
            ValueError: L exceeds max_length.
        """
        if s.shape[1] > share(self.max_length):
            raise ValueError(
                f"a batch of length {s.shape[1] * parts()}, but the model was built for max_length="
                f"{self.max_length}; build it with the task's longest length"
            )
        # What is held beyond is padding. No min(): a compiler would go on with a formula.
        length = s.shape[1] * parts()
        return length if length <= self.max_length else self.max_length

    def convolved(
        self, x: Tensor, kernel: Tensor, skip: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """x (B, l, D) with a kernel (directions, d, L), plus skip (d,) times x, plus bias (d,).

        d are the channels of this process, ``own_channels``.
        """

        def convolve(x: Tensor) -> Tensor:
            y = long_conv.convolve(x, kernel, skip, implementation=self.implementation)
            return y if bias is None else y + bias.to(y.dtype)

        return convolve_long(x, kernel.shape[-1], convolve)


class LongConvMixer(LongConvModule):
    """A mixer with one long convolution."""

    def convolve(self, h: Tensor, kernel: LongKernel, skip: Tensor | None) -> Tensor:
        """h (B, L, D), zero at padded positions, with the kernel, plus skip (D,) times h.

        Returns:
            (B, L, D) in the dtype of h; not zero at padded positions.

        Raises:
            ValueError: L exceeds max_length.
        """
        length, mine = self.checked_length(h), own_channels(h.shape[-1])
        with without_autocast(h):
            taps = kernel(length, mine)  # (directions, D, L)
        return self.convolved(h, taps, None if skip is None else of_channels(skip, mine))

    def filter(self, kernel: LongKernel, skip: Tensor | None) -> Filter:
        """``convolve`` a token at a time."""
        with without_autocast(next(kernel.parameters())):
            modes = kernel.modes()
            if modes is None:
                taps = kernel(self.max_length)[0]  # (D, K)
            else:
                taps = modes.log_decay.real.new_zeros(len(modes.log_decay), 1)
            if skip is not None:
                taps = torch.cat([taps[:, :1] + skip[:, None], taps[:, 1:]], dim=-1)
            return Filter(taps, modes=modes)


class GatedConvolution(LongConvMixer):
    """S4's block: glu(dropout(gelu(conv(x) + skip * x)) W), channels mix behind the convolution.

    Args:
        kernel: of the convolution, 1 direction if causal, else 2.
        dim: channels D.
        dropout: before the output map.
    """

    causal: bool

    def __init__(self, kernel: LongKernel, dim: int, dropout: float) -> None:
        super().__init__(kernel.max_length)
        self.kernel = kernel
        self.skip = nn.Parameter(torch.randn(dim))  # D of the state space, as S4 draws it
        self.dropout = Dropout(dropout)
        self.out = linear(dim, 2 * dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix the tokens of each sequence, see ``ChelaMixer.forward``."""
        h = zero_padding(x.to(compute_dtype(x)), lengths)  # (B, L, D)
        return self._leave(self.convolve(h, self.kernel, self.skip))

    def least_exchange(self, shares: Shares) -> int:
        """Bytes that the devices of ``shares`` send at least, forward."""
        return shares.channels(len(self.skip), self.causal)

    def prefill(
        self, x: Tensor, lengths: Tensor | None = None, room: int = 0
    ) -> tuple[Tensor, FilterState]:
        """``forward``, and the state behind it, see ``chela.mixers.stepping``."""
        causal_only(self)
        h = zero_padding(x.to(compute_dtype(x)), lengths)  # (B, L, D)
        state = self.filter(self.kernel, self.skip).begin(h, lengths)
        return self._leave(self.convolve(h, self.kernel, self.skip)), state

    def step(self, x: Tensor, state: FilterState) -> tuple[Tensor, FilterState]:
        """One more token (B, 1, D) of each sequence."""
        y, state = state.filter.step(x.to(compute_dtype(x)), state)
        return self._leave(y), state

    def _leave(self, y: Tensor) -> Tensor:
        return F.glu(self.out(self.dropout(F.gelu(y))), dim=-1)  # (B, L, D)
