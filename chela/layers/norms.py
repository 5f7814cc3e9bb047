"""Normalisations behind one interface, ``norm(x, mask)``, that padding cannot touch.

``norm.per_token(x, mask)`` says what the norm does to each token of x, for kernels that do it
themselves; BatchNorm takes its statistics then.

All compute in float32 or better and return the dtype of x. What they return at padded positions is
finite for finite x, but not zero: who reads across positions zeroes it first.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from chela.kernels.precision import accumulation_dtype
from chela.kernels.tokens import TokenNorm
from chela.layers.processes import merged

NormName = Literal["layer", "rms", "batch", "scale"]

EPS = 1e-5  # PyTorch's default for layer and batch norms


def make_norm(name: NormName, dim: int) -> nn.Module:
    """The norm called ``name`` over ``dim`` channels."""
    norms = {"layer": LayerNorm, "rms": RMSNorm, "batch": BatchNorm, "scale": ScaleNorm}
    return norms[name](dim)


class _Alone(nn.Module):
    """A norm of each token by itself, so that it needs no mask."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise x (..., D)."""
        return self.per_token(x).eager(x).to(x.dtype)

    def per_token(self, x: Tensor, mask: Tensor | None = None) -> TokenNorm:
        """The same as an argument of a token-wise operation."""
        raise NotImplementedError


class LayerNorm(_Alone):
    """Mean 0 and variance 1 over the channels of each token (Ba et al. 2016)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def per_token(self, x: Tensor, mask: Tensor | None = None) -> TokenNorm:
        """See ``_Alone``."""
        return TokenNorm("layer", self.weight, self.bias, EPS)


class RMSNorm(_Alone):
    """Root mean square 1 over the channels of each token (Zhang and Sennrich 2019).

    ``EPS`` is smaller than the other norms': attention heads may hand in small numbers.
    """

    EPS = 1e-6

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def per_token(self, x: Tensor, mask: Tensor | None = None) -> TokenNorm:
        """See ``_Alone``."""
        return TokenNorm("rms", self.weight, None, self.EPS)


class ScaleNorm(_Alone):
    """RMSNorm with one gain for all channels (Nguyen and Salazar 2019, in Mega's scaling)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def per_token(self, x: Tensor, mask: Tensor | None = None) -> TokenNorm:
        """See ``_Alone``."""
        return TokenNorm("rms", self.weight.expand(x.shape[-1]), None, EPS)


class BatchNorm(nn.Module):
    """Mean 0 and variance 1 of each channel over all real tokens of the batch.

    In training the statistics are the batch's own, and a running average of them is kept; in
    evaluation that average is used, so a sample's output does not depend on its batch. A batch of
    fewer than two real tokens has no variance: the running average serves there too. The batch is
    that of all processes together.

    The average is over all batches since ``restart`` until there are ``recent`` of them, and over
    about as many of the latest from then on.
    """

    running_mean: Tensor
    running_var: Tensor
    batches: Tensor

    def __init__(self, dim: int, recent: int = 32) -> None:
        super().__init__()
        # More than PyTorch's ten: the statistics of batches that are sorted by length go with their
        # lengths, and recipes sort 32 at a time. Many more would be of weights of long ago.
        self.recent = recent
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.register_buffer("batches", torch.zeros(()))  # that the average has seen

    def restart(self) -> None:
        """Let the next batch be the first of the running average."""
        self.batches.zero_()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise x (B, L, D) over the positions where mask (B, L) is true; None: over all."""
        wide = x.to(accumulation_dtype(x))
        scale, shift = self._scale_and_shift_of(wide, mask)
        return torch.addcmul(shift, wide, scale).to(x.dtype)

    def per_token(self, x: Tensor, mask: Tensor | None = None) -> TokenNorm:
        """The same as an argument of a token-wise operation; statistics are taken here."""
        scale, shift = self._scale_and_shift_of(x.to(accumulation_dtype(x)), mask)
        return TokenNorm("affine", scale, shift)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The affine map (D,), (D,) that the norm is in evaluation."""
        return self._affine(self.running_mean, self.running_var)

    def _scale_and_shift_of(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.training:
            return self._affine(*self._batch_statistics(x, mask))
        return self.scale_and_shift()

    def _affine(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.weight * (variance + EPS).rsqrt()
        return scale, self.bias - mean * scale

    def _batch_statistics(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, squares, count = merged(*_sums(x, mask))  # (D,), (D,), ()
        variance = squares / count.clamp(min=1)
        enough = count >= 2
        with torch.no_grad():
            # A step that is not finite is skipped: it must leave the average as it is, too.
            counts = enough & mean.isfinite().all() & squares.isfinite().all()
            unbiased = squares / (count - 1).clamp(min=1)
            share = (1 / (self.batches + 1)).clamp(min=1 / self.recent)
            for average, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                average.copy_(torch.where(counts, average.lerp(new, share), average))
            self.batches += counts
        return (
            torch.where(enough, mean, self.running_mean),
            torch.where(enough, variance, self.running_var),
        )


def _sums(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), sum of squared deviations (D,) and number () of the tokens where mask is true."""
    if mask is None:  # one pass over x instead of several
        variance, mean = torch.var_mean(x, dim=(0, 1), correction=0)
        count = torch.full((), x.shape[0] * x.shape[1], dtype=x.dtype, device=x.device)
        return mean, variance * count, count
    padded = ~mask[..., None]  # (B, L, 1)
    count = mask.sum().to(x.dtype)
    mean = x.masked_fill(padded, 0).sum((0, 1)) / count.clamp(min=1)
    return mean, (x - mean).masked_fill(padded, 0).square().sum((0, 1)), count
