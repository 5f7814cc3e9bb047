"""Which positions of a padded batch are real, and how the others are silenced."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_mask(lengths: Tensor, length: int) -> Tensor:
    """True at the positions before each sequence's end.

    Args:
        lengths: (B,) integers from 0 to ``length``.
        length: the padded length L of the batch.

    Returns:
        (B, L) booleans.
    """
    return torch.arange(length, device=lengths.device) < lengths[:, None]  # (B, L)


def check_lengths(lengths: Tensor | None, x: Tensor) -> None:
    """Hold ``lengths`` against x (B, ...): one that is broadcast would be another sequence's.

    Raises:
        ValueError: they are not (B,).
    """
    if lengths is not None and lengths.shape != x.shape[:1]:
        raise ValueError(f"lengths are {tuple(lengths.shape)}; give (B,) = ({x.shape[0]},)")


def zero_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """``x`` with zeros at padded positions, whatever stood there, even NaN.

    Args:
        x: (B, L) or (B, L, ...).
        lengths: (B,) integers, or None when nothing is padded (then ``x`` itself comes back).

    Returns:
        A tensor of the shape and dtype of ``x``; the gradient is zero at padded positions.

    Raises:
        ValueError: the lengths are not those of the B sequences.
    """
    if lengths is None:
        return x
    check_lengths(lengths, x)
    padded = ~valid_mask(lengths, x.shape[1])
    return x.masked_fill(padded.view(*padded.shape, *[1] * (x.ndim - 2)), 0)


def last_token(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The last true token of each sequence; of an empty one the first position.

    Args:
        x: (B, L, D).
        lengths: (B,) true lengths, None when nothing is padded.

    Returns:
        (B, D).
    """
    if lengths is None:
        return x[:, -1]
    rows = torch.arange(len(x), device=x.device)
    return x[rows, lengths.clamp(min=1) - 1]
