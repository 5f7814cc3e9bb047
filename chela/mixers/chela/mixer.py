"""The CHELA mixer: short convolution, long convolution, linear attention, gate.

    s = silu(shortconv(h))                     local, high frequency
    z = longconv(s) + skip * s                 global, low frequency
    q, k = scale * phi(z Wz) + shift           both from the convolutions; k_t perhaps k_(t-1);
                                               perhaps of unit length
    v = silu(h Wv)                             from the input
    o = norm_head(linear_attention(q, k, v))   perhaps with a decay per head, from z
    y = Wo (silu(z Wg) * o) + path(z)          path: glu(Wd gelu(z)), Wd silu(z), or none

The order of the pieces is the paper's (arXiv 2406.08128); its body was not available to us, and
every formula and default here is our definition.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from chela.kernels import valid_mask, zero_padding
from chela.kernels.choice import Implementation
from chela.kernels.norm_linear import norm_linear
from chela.kernels.tokens import NO_NORM, TokenNorm, drawback, obstacle
from chela.layers.basic import compute_dtype, linear
from chela.mixers.chela.choices import ChelaConfig
from chela.mixers.chela.gates import GluPath, LinearPath, MegaGate, NoGate, SiluGate
from chela.mixers.chela.linear_attention import AttentionState, LinearAttention
from chela.mixers.chela.long_conv import FoldedLongConv, LongConv
from chela.mixers.chela.short_conv import ShortConv
from chela.mixers.long_kernels import (
    CosineKernel,
    EMAKernel,
    ExplicitKernel,
    LongKernel,
    MultiscaleKernel,
    WaveletKernel,
)
from chela.mixers.state_space import StateSpaceKernel
from chela.mixers.stepping import FilterState

GATES: dict[str, type[SiluGate] | type[MegaGate] | type[NoGate]] = {
    "silu": SiluGate,
    "mega": MegaGate,
    "none": NoGate,
}
PATHS: dict[str, type[GluPath] | type[LinearPath]] = {"glu": GluPath, "linear": LinearPath}


class ChelaState(NamedTuple):
    """Where each part is; None of one that is switched off."""

    short_conv: FilterState | None
    long_conv: FilterState | None
    attention: AttentionState | None


class ChelaMixer(nn.Module):
    """The mixer, without the norm before it and the residual around it.

    Args:
        dim: channels D.
        max_length: the longest batch it will see; kernels are built for it.
        causal: no position sees a later one.
        config: the choices above.

    Raises:
        ValueError: sizes that do not fit together; the message says what would.
    """

    Config = ChelaConfig
    operation = "norm_linear"
    has_triton = True
    implementation: Implementation = "torch"  # use_kernels sets it
    # Times that a block's forward and backward read or write an activation (B, L, D) at least: 16
    # and 39, with each stage one kernel. What a benchmark holds a step's time against.
    least_passes = 55

    def __init__(
        self,
        dim: int,
        max_length: int,
        causal: bool = False,
        config: ChelaConfig = ChelaConfig(),
    ) -> None:
        super().__init__()
        if dim < 1 or max_length < 1:
            raise ValueError(f"dim={dim}, max_length={max_length}: both must be at least 1")
        v_dim = 2 * dim if config.v_dim is None else config.v_dim
        self.short_conv = (
            ShortConv(dim, config.short_conv_width, causal) if config.use_short_conv else None
        )
        self.long_conv: LongConv | FoldedLongConv | None = None
        if config.use_long_conv:
            kernel = _long_kernel(dim, max_length, 1 if causal else 2, config)
            branches = config.branch_widths, config.branch_norm
            self.long_conv = LongConv(kernel, dim, causal, *branches)
        self.value = linear(dim, v_dim)
        self.attention = (
            LinearAttention(dim, v_dim, causal, config) if config.use_attention else None
        )
        self.gate = GATES[config.gate](dim, v_dim, config.dropout)
        self.path = None if config.conv_path == "none" else PATHS[config.conv_path](dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix the tokens of each sequence.

        Args:
            x: (B, L, D); padded positions may hold anything.
            lengths: (B,) true lengths, None when nothing is padded.

        Returns:
            (B, L, D), in autocast's dtype where it is on; arbitrary at padded positions.

        Raises:
            ValueError: L exceeds max_length.
        """
        h, z, v = self._streams(x, NO_NORM, lengths)
        return self._leave(h, z, self._attend(z, v, self._gate(z), lengths), lengths)

    def split_obstacle(self) -> None:
        """Its tokens can be those of several devices, unless a part says why not."""

    def prefill(
        self, x: Tensor, lengths: Tensor | None = None, room: int = 0
    ) -> tuple[Tensor, ChelaState]:
        """``forward``, and the state behind it, see ``chela.mixers.stepping``."""
        mask = None if lengths is None else valid_mask(lengths, x.shape[1])
        short = long = attention = None
        h, v = self._input(x, NO_NORM, lengths)
        s = h
        if self.short_conv is not None:
            s, short = self.short_conv.prefill(h, lengths)
            s = zero_padding(s, lengths)
        z = s
        if self.long_conv is not None:
            z, long = self.long_conv.prefill(s, mask, lengths)
        g = self._gate(z)
        if self.attention is None:
            o = self._attend(z, v, g, lengths)
        else:
            o, attention = self.attention.prefill(z, v, g, lengths)
        return self._leave(h, z, o, lengths), ChelaState(short, long, attention)

    def step(self, x: Tensor, state: ChelaState) -> tuple[Tensor, ChelaState]:
        """One more token (B, 1, D) of each sequence."""
        short, long, attention = state
        h, v = self._input(x, NO_NORM, None)
        s = h
        if self.short_conv is not None and short is not None:
            s, short = self.short_conv.step(h, short)
        z = s
        if self.long_conv is not None and long is not None:
            z, long = self.long_conv.step(s, long)
        g = self._gate(z)
        if self.attention is None or attention is None:
            o = self._attend(z, v, g, None)
        else:
            o, attention = self.attention.step(z, v, g, attention)
        return self._leave(h, z, o, None), ChelaState(short, long, attention)

    def _gate(self, z: Tensor) -> Tensor | None:
        """What the attention is multiplied with (B, L, v_dim), unless the gate's kernels do it."""
        return None if self.gate.fuses_residual else self.gate.preactivation(z)

    def _leave(self, h: Tensor, z: Tensor, o: Tensor, lengths: Tensor | None) -> Tensor:
        """The ways out, from the attention o (B, L, v_dim) to (B, L, D)."""
        if isinstance(self.gate, SiluGate) and self.gate.fuses_residual:
            y = self.gate.add_to(None, z, o, lengths, 0.0)
        else:
            y = self.gate(h, z, o)
        return y if self.path is None else y + self.path(z)

    @property
    def fuses_residual(self) -> bool:
        """Whether ``add_to`` can be called: kernels take the norm and the residual along.

        Not beside a path of the convolutions: dropout is on the sum, which no kernel makes.
        """
        return self.implementation == "triton" and self.gate.fuses_residual and self.path is None

    def kernel_obstacle(self) -> str | None:
        """Why the kernels of norm and value cannot serve this mixer; None where they can."""
        return obstacle(self.value.in_features)

    def kernel_drawback(self) -> str | None:
        """Why torch.compile is to be preferred to them; None where they are faster."""
        return drawback(self.value.in_features, self.value.out_features)

    def add_to(self, x: Tensor, norm: TokenNorm, lengths: Tensor | None, dropout: float) -> Tensor:
        """x + dropout(self(norm(x))) for x (B, L, D), zero at padded positions.

        Raises:
            ValueError: L exceeds max_length, or the ways out have no kernel.
        """
        if not isinstance(self.gate, SiluGate) or self.path is not None:
            raise ValueError("no kernel has these ways out; call the mixer, and add to the result")
        _, z, v = self._streams(x, norm, lengths)
        return self.gate.add_to(x, z, self._attend(z, v, None, lengths), lengths, dropout)

    def _streams(
        self, x: Tensor, norm: TokenNorm, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """h = norm(x) and z, (B, L, D) each, and v (B, L, v_dim)."""
        mask = None if lengths is None else valid_mask(lengths, x.shape[1])
        h, v = self._input(x, norm, lengths)
        s = h if self.short_conv is None else zero_padding(self.short_conv(h), lengths)
        z = s if self.long_conv is None else self.long_conv(s, mask)
        return h, z, v

    def _input(self, x: Tensor, norm: TokenNorm, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """h (B, L, D), zero at padded positions, and v (B, L, v_dim)."""
        if self.implementation == "torch":
            h = zero_padding(norm.eager(x).to(compute_dtype(x)), lengths)
            return h, F.silu(self.value(h))
        return norm_linear(
            x,
            self.value.weight,
            self.value.bias,
            norm=norm,
            lengths=lengths,
            dtype=compute_dtype(x),
            implementation=self.implementation,
        )

    def _attend(self, z: Tensor, v: Tensor, gate: Tensor | None, lengths: Tensor | None) -> Tensor:
        """o (B, L, v_dim), times silu(gate) where a gate (B, L, v_dim) is given."""
        if self.attention is not None:
            return self.attention(z, v, gate, lengths)
        return v if gate is None else F.silu(gate) * v

    def fold(self) -> None:
        """Turn the long stage into one constant kernel, for inference; in place."""
        if isinstance(self.long_conv, LongConv):
            self.long_conv = self.long_conv.fold()


def _long_kernel(dim: int, max_length: int, directions: int, config: ChelaConfig) -> LongKernel:
    if config.long_conv_kernel == "multiscale":
        taps, decay = config.long_conv_taps, config.long_conv_decay
        return MultiscaleKernel(dim, max_length, directions, taps, decay)
    if config.long_conv_kernel == "cosine":
        windows = config.long_conv_window_min, config.long_conv_window_max
        return CosineKernel(dim, max_length, directions, config.long_conv_terms, *windows)
    if config.long_conv_kernel == "wavelet":
        return WaveletKernel(dim, max_length, directions, config.long_conv_filter)
    if config.long_conv_kernel == "explicit":
        threshold, dropout = config.long_conv_soft_threshold, config.long_conv_dropout
        return ExplicitKernel(dim, max_length, directions, threshold, dropout)
    if config.long_conv_kernel == "s4d":
        return StateSpaceKernel(dim, max_length, directions, config.long_conv_state_space)
    return EMAKernel(dim, max_length, directions, config.ema_dim)
