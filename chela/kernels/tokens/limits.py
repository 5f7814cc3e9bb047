"""What the Triton forms of the token-wise operations serve, and where they are slower."""

from __future__ import annotations

from torch import Tensor

MAX_DIM = 512  # a tile holds whole tokens, and with them a multiprocessor's memory
FAST_DIM = 128  # the widest tokens for which a sweep showed a gain over torch.compile
CHUNK = 64  # features of the other side that a program takes at a time
MAX_IDLE = 0.25  # work on padding per work that counts: in a sweep on an H100 0 won, 0.6 lost


def obstacle(dim: int) -> str | None:
    """Why the kernels cannot serve tokens of ``dim`` channels; None where they can."""
    if dim <= MAX_DIM:
        return None
    return f"D={dim}: the token-wise Triton kernels serve up to {MAX_DIM} channels"


def check_map(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Hold a linear map against its x.

    Raises:
        ValueError: x is not (B, L, D), weight not (N, D) or bias not (N,).
    """
    if x.ndim != 3 or weight.ndim != 2 or weight.shape[1] != x.shape[-1]:
        raise ValueError(
            f"x {tuple(x.shape)} and weight {tuple(weight.shape)} do not fit; "
            "give x as (B, L, D) and weight as (N, D)"
        )
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"bias is {tuple(bias.shape)}; give (N,) = ({weight.shape[0]},)")


def drawback(dim: int, features: int) -> str | None:
    """Why torch.compile is to be preferred, though the kernels serve; None where they are faster.

    Args:
        dim: channels of a token, which a tile pads to a power of two.
        features: what they are mapped to, in chunks that are padded likewise.
    """
    width, chunk = _power_of_two(dim), min(CHUNK, _power_of_two(features))
    wide = -(-features // chunk) * chunk
    if width * wide > (1 + MAX_IDLE) * dim * features:
        return (
            f"{dim} x {features} channels are padded to {width} x {wide}: torch.compile is faster"
        )
    if dim > FAST_DIM:
        return f"D={dim}: above {FAST_DIM} channels no gain over torch.compile was measured"
    return None


def _power_of_two(size: int) -> int:
    """The width of a tile that holds ``size`` channels; a matrix product takes at least 16."""
    return max(16, 1 << (size - 1).bit_length())
