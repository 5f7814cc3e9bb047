"""One residual block: a mixer over the tokens, then a feed-forward part over the channels."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from chela.kernels import valid_mask, zero_padding
from chela.layers.basic import Dropout
from chela.layers.norms import NormName, make_norm
from chela.mixers.stepping import State, Steps


class Block(nn.Module):
    """x + mixer(norm(x)), then x + ffn(norm(x)); with post-norm norm(x + ...) instead.

    A part may take a pre-norm block's norm, dropout and residual into its own kernels: it then has
    ``fuses_residual`` true and ``add_to(x, norm, lengths, dropout)``, which returns
    x + dropout(part(norm(x))).

    Args:
        mixer: called with (x (B, L, D), lengths (B,) or None), returns (B, L, D).
        ffn: called with (B, L, D), returns the same; None for a block without.
        dim: channels D.
        norm: which normalisation.
        prenorm: normalise what enters each part, not what leaves it.
        dropout: on what each part adds to the residual stream.
    """

    def __init__(
        self,
        mixer: nn.Module,
        ffn: nn.Module | None,
        dim: int,
        norm: NormName,
        prenorm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.prenorm = prenorm
        self.mixer = mixer
        self.mixer_norm = make_norm(norm, dim)
        self.ffn = ffn
        self.ffn_norm = None if ffn is None else make_norm(norm, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, L, D) to (B, L, D), zero at padded positions."""
        mask = None if lengths is None else valid_mask(lengths, x.shape[1])  # (B, L)
        if self._fuses(self.mixer):
            x = self._added(self.mixer, self.mixer_norm, x, mask, lengths)
        else:
            x = self._joined(x, self.mixer(self._entering(x, mask), lengths), mask)
        return self._fed(x, mask, lengths)

    def prefill(self, x: Tensor, lengths: Tensor | None, room: int) -> tuple[Tensor, State]:
        """``forward``, and the state of the mixer behind each true length."""
        mask = None if lengths is None else valid_mask(lengths, x.shape[1])  # (B, L)
        y, state = cast("Steps", self.mixer).prefill(self._entering(x, mask), lengths, room)
        return self._fed(self._joined(x, y, mask), mask, lengths), state

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One more token (B, 1, D) of each sequence."""
        y, state = cast("Steps", self.mixer).step(self._entering(x, None), state)
        return self._fed(self._joined(x, y, None), None, None), state

    def _entering(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """What the mixer takes."""
        return self.mixer_norm(x, mask) if self.prenorm else x

    def _joined(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
        """The stream, and what the mixer gave."""
        x = x + self.dropout(y)
        return x if self.prenorm else self.mixer_norm(x, mask)

    def _fed(self, x: Tensor, mask: Tensor | None, lengths: Tensor | None) -> Tensor:
        """The feed-forward part."""
        if self.ffn is not None and self.ffn_norm is not None:
            if self._fuses(self.ffn):
                return self._added(self.ffn, self.ffn_norm, x, mask, lengths)
            if self.prenorm:
                x = x + self.dropout(self.ffn(self.ffn_norm(x, mask)))
            else:
                x = self.ffn_norm(x + self.dropout(self.ffn(x)), mask)
        return zero_padding(x, lengths)

    def _fuses(self, part: nn.Module) -> bool:
        return self.prenorm and bool(getattr(part, "fuses_residual", False))

    def _added(
        self, part: Any, norm: Any, x: Tensor, mask: Tensor | None, lengths: Tensor | None
    ) -> Tensor:
        """x + dropout(part(norm(x))) by the part's own kernels, zero at padded positions."""
        return part.add_to(x, norm.per_token(x, mask), lengths, self.dropout.rate)
