"""Where a token stands, for mixers that could not tell otherwise: rotary position embedding.

Attention alone sees a set of tokens. LRA's own code adds a vector to each embedding, sinusoidal for
text and learned for images (Tay et al. 2021); here the encoder knows no positions, so that models
which need none do not get any, and attention turns its queries and keys instead.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from chela.kernels.precision import accumulation_dtype

Positions = Literal["rotary", "none"]

BASE = 10000.0  # Vaswani et al. 2017: the slowest pair turns once in 2 pi BASE > 60,000 tokens


def rotate(x: Tensor, first: Tensor | int = 0) -> Tensor:
    """Turn each pair of channels by its position times its frequency (Su et al. 2021).

    Pair p consists of the channels p and p + d/2; its frequency is BASE^(-2p/d). A product of two
    rotated vectors depends on their positions by the difference alone.

    Args:
        x: queries or keys (B, L, H, d).
        first: the position of all sequences' first, or of each (B,).

    Returns:
        (B, L, H, d) in the dtype of x, computed in float32 or better.
    """
    positions = torch.arange(x.shape[1], device=x.device)  # (L,)
    if isinstance(first, Tensor):
        positions = first[:, None] + positions  # (B, L)
    elif first:
        positions = first + positions
    cos, sin = turns(positions, x.shape[-1], x)  # (L, d/2) or (B, L, d/2)
    one, other = x.chunk(2, dim=-1)  # (B, L, H, d/2)
    cos, sin = cos[..., None, :], sin[..., None, :]  # (L, 1, d/2) or (B, L, 1, d/2)
    turned = (one * cos - other * sin, other * cos + one * sin)
    return torch.cat(turned, dim=-1).to(x.dtype)


def turns(positions: Tensor, dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions, each (..., dim/2).

    Args:
        positions: (...) integers; relative ones may be negative.
        dim: channels d, an even number.
        like: a tensor in whose dtype they shall be, but at least float32.
    """
    return _turns(positions, dim, accumulation_dtype(like))


# An operator, or the compiler would make each cosine anew in every channel, head and sequence,
# three times a block: a quarter of a Transformer's step at 4,096 tokens.
@torch.library.custom_op("chela::turns", mutates_args=())
def _turns(positions: Tensor, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    pairs = torch.arange(dim // 2, device=positions.device, dtype=dtype)
    angles = positions.to(dtype)[..., None] * BASE ** (-2 * pairs / dim)  # (..., dim/2)
    return angles.cos(), angles.sin()


@_turns.register_fake
def _(positions: Tensor, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    made = positions.new_empty((*positions.shape, dim // 2), dtype=dtype)
    return made, torch.empty_like(made)


def check_heads(inner_dim: int, num_heads: int, positions: Positions) -> None:
    """Refuse heads that do not divide the attention's channels, or have an odd number to turn.

    Raises:
        ValueError: naming a size that would do.
    """
    if inner_dim % num_heads:
        nearest = -(-inner_dim // num_heads) * num_heads
        raise ValueError(
            f"attention_dim={inner_dim} is not divisible by num_heads={num_heads}; "
            f"set attention_dim={nearest}, or another num_heads"
        )
    if positions == "rotary" and (inner_dim // num_heads) % 2:
        raise ValueError(
            f"a head of {inner_dim // num_heads} channels: rotary positions turn pairs; "
            f"set attention_dim={inner_dim + num_heads}, or positions=none"
        )
