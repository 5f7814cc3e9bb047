"""Sequences over several devices: which part of them a process holds.

P processes in a row hold the sequences of a batch together, each a share of equally many positions
in a row, padded like a batch. What looks at one token alone needs nothing of the others; all else
is one of ``chela.layers.exchanges``.
"""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from chela.layers.processes import is_alone, processes

SHORTEST = 8  # positions of a share: as far as a short convolution reaches

_group: dist.ProcessGroup | None = None
_parts, _part = 1, 0


def share_sequences(devices: int, missed: timedelta | None = None) -> None:
    """From now on so many processes in a row hold a sequence; all processes of the run call it.

    Args:
        devices: a divisor of their number.
        missed: after which one of them that fell silent counts as gone; None: PyTorch's own.
    """
    global _group, _parts, _part
    world = dist.get_world_size()
    _parts, _part = devices, dist.get_rank() % devices
    if devices in (1, world):
        _group = dist.group.WORLD
    else:
        _group, _ = dist.new_subgroups(devices, timeout=missed)


def parts() -> int:
    """How many processes hold a sequence together; 1: each holds its own."""
    return 1 if is_alone() else _parts


def part() -> int:
    """Which share of its sequences this process holds, from 0."""
    return 0 if is_alone() else _part


def replicas() -> int:
    """Among how many groups of processes the samples of a batch are divided."""
    return processes() // parts()


def group() -> dist.ProcessGroup | None:
    """The processes that hold a sequence together."""
    return _group


def share(length: int) -> int:
    """Positions of a share of sequences of ``length``."""
    return length if parts() == 1 else max(-(-length // parts()), SHORTEST)


def own_positions(x: Tensor, fill: int = 0) -> Tensor:
    """This process's positions (B, l, ...) of x (B, L, ...), ``fill`` behind the end of x."""
    if parts() == 1:
        return x
    size = share(x.shape[1])
    mine = x[:, part() * size : (part() + 1) * size]
    missing = size - mine.shape[1]
    return F.pad(mine, (0, 0) * (x.ndim - 2) + (0, missing), value=fill) if missing else mine


def own_share(values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """This process's positions of a batch, and how many true ones of each sequence are among them.

    Args:
        values: (B, L) or (B, L, C).
        lengths: (B,) true lengths, None when nothing is padded.

    Returns:
        The same, with l positions instead of L.
    """
    if parts() == 1:
        return values, lengths
    length = values.shape[1]
    size = share(length)
    if lengths is None and size * parts() != length:
        lengths = torch.full(values.shape[:1], length, device=values.device)
    if lengths is not None:
        lengths = (lengths - part() * size).clamp(0, size)
    return own_positions(values), lengths


def own_channels(dim: int) -> slice | None:
    """The channels of which this process has every position after ``by_channel``; None: all.

    Raises:
        ValueError: there are fewer channels than parts.
    """
    if parts() == 1:
        return None
    if dim < parts():
        raise ValueError(f"{dim} channels over {parts()} devices: each needs one at least")
    sizes = channels(dim)
    first = sum(sizes[: part()])
    return slice(first, first + sizes[part()])


def channels(dim: int) -> list[int]:
    """How many channels each part gets."""
    return [dim // parts() + (each < dim % parts()) for each in range(parts())]
