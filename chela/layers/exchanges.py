"""What the processes exchange that hold sequences together, see ``chela.layers.sequence``.

Each exchange is an operation of its own, which a compiler leaves as it is and where it is, with its
adjoint as its gradient: that of the sum of all processes' losses. All processes call each, forward
and backward.

Positions become channels and back by all-to-all: a long convolution has every position of D / P
channels then. Only neighbours exchange a halo, and only sums of states (a few kilobytes) travel
from share to share. ``chela.bench.exchange`` holds the bytes against the least there could be.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from chela.layers.sequence import channels, group, part, parts


def with_halo(x: Tensor, before: int, after: int) -> Tensor:
    """x (B, l, D) between the last ``before`` tokens of the share before and the first of the next.

    Returns:
        (B, before + l + after, D), zeros outside of the sequence.
    """
    if max(before, after) > x.shape[1]:
        raise ValueError(f"a share of {x.shape[1]} tokens, but {max(before, after)} are looked at")
    return _with_halo(x, before, after)


def sum_before(x: Tensor) -> Tensor:
    """The sum of what the shares before this one have; zeros of the first."""
    return _sum_beside(x, False)


def sum_of_all(x: Tensor) -> Tensor:
    """The sum over all shares."""
    return x if parts() == 1 else _sum_of_all(x)


def of_all(x: Tensor) -> Tensor:
    """What each share has, in their order, (P, ...)."""
    return x[None] if parts() == 1 else _of_all(x)


def true_counts(lengths: Tensor | None, length: int) -> Tensor | int:
    """How many tokens the sequences have in all, from those in shares of ``length``.

    Returns:
        What a state (B, H, dk, dv) is divided by for its mean: (B, 1, 1, 1), at least 1; or a
        number, when nothing is padded.
    """
    if lengths is None:
        return length * parts()
    return sum_of_all(lengths).clamp(min=1)[:, None, None, None]


def _all_to_all(sent: Tensor, sends: list[int], receives: list[int]) -> Tensor:
    """Numbers (sum of receives,) for (sum of sends,), in the order of the parts."""
    received = sent.new_empty(sum(receives))
    dist.all_to_all_single(received, sent, receives, sends, group=group())
    return received


@torch.library.custom_op("chela::by_channel", mutates_args=())
def by_channel(x: Tensor) -> Tensor:
    """This process's positions of all channels (B, l, D) as all of its own channels (B, P l, d)."""
    batch, length, dim = x.shape
    sizes = channels(dim)
    own = sizes[part()]
    sent = torch.cat([each.flatten() for each in x.split(sizes, -1)])
    sends = [batch * length * each for each in sizes]
    received = _all_to_all(sent, sends, [batch * length * own] * parts())
    whole = received.view(parts(), batch, length, own).transpose(0, 1)
    return whole.reshape(batch, parts() * length, own)


@by_channel.register_fake
def _(x: Tensor) -> Tensor:
    batch, length, dim = x.shape
    return x.new_empty(batch, parts() * length, channels(dim)[part()])


@torch.library.custom_op("chela::by_time", mutates_args=())
def by_time(y: Tensor, dim: int) -> Tensor:
    """``by_channel`` undone: (B, P l, d) of ``dim`` channels in all to (B, l, D)."""
    batch, whole, own = y.shape
    length, sizes = whole // parts(), channels(dim)
    sent = y.unflatten(1, (parts(), length)).transpose(0, 1).flatten()
    receives = [batch * length * each for each in sizes]
    received = _all_to_all(sent, [batch * length * own] * parts(), receives)
    return torch.cat([each.view(batch, length, -1) for each in received.split(receives)], dim=-1)


@by_time.register_fake
def _(y: Tensor, dim: int) -> Tensor:
    return y.new_empty(y.shape[0], y.shape[1] // parts(), dim)


def _keep_dim(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.dim = inputs[0].shape[-1]


by_channel.register_autograd(
    lambda ctx, upstream: by_time(upstream, ctx.dim), setup_context=_keep_dim
)
by_time.register_autograd(lambda ctx, upstream: (by_channel(upstream), None))


def _swapped(
    to_before: Tensor, to_after: Tensor, from_before: int, from_after: int
) -> list[Tensor]:
    """What neighbours send (B, n, D) each: ``from_before`` tokens and ``from_after``, or zeros."""
    batch, _, dim = to_before.shape
    sends, receives = [0] * parts(), [0] * parts()
    pieces = []
    if part() > 0:
        pieces.append(to_before.flatten())
        sends[part() - 1], receives[part() - 1] = to_before.numel(), batch * from_before * dim
    if part() < parts() - 1:
        pieces.append(to_after.flatten())
        sends[part() + 1], receives[part() + 1] = to_after.numel(), batch * from_after * dim
    received = _all_to_all(torch.cat(pieces), sends, receives)
    first, last = (to_before.new_zeros(batch, n, dim) for n in (from_before, from_after))
    if part() > 0:
        first = received[: first.numel()].view_as(first)
    if part() < parts() - 1:
        last = received[received.numel() - last.numel() :].view_as(last)
    return [first, last]


@torch.library.custom_op("chela::with_halo", mutates_args=())
def _with_halo(x: Tensor, before: int, after: int) -> Tensor:
    first, last = _swapped(x[:, :after], x[:, x.shape[1] - before :], before, after)
    return torch.cat([first, x, last], dim=1)


@_with_halo.register_fake
def _(x: Tensor, before: int, after: int) -> Tensor:
    return x.new_empty(x.shape[0], before + x.shape[1] + after, x.shape[2])


@torch.library.custom_op("chela::halo_gradient", mutates_args=())
def _halo_gradient(upstream: Tensor, before: int, after: int) -> Tensor:
    """The gradient of x: that of the halos is added where their tokens are."""
    length = upstream.shape[1] - before - after
    first, mine, last = upstream.split([before, length, after], dim=1)
    mine = mine.clone(memory_format=torch.contiguous_format)
    of_first, of_last = _swapped(first, last, after, before)
    mine[:, :after] += of_first
    mine[:, length - before :] += of_last
    return mine


@_halo_gradient.register_fake
def _(upstream: Tensor, before: int, after: int) -> Tensor:
    batch, length, dim = upstream.shape
    return upstream.new_empty(batch, length - before - after, dim)


def _keep_halo(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *ctx.halo = inputs


_with_halo.register_autograd(
    lambda ctx, upstream: (_halo_gradient(upstream, *ctx.halo), None, None),
    setup_context=_keep_halo,
)


@torch.library.custom_op("chela::sum_beside", mutates_args=())
def _sum_beside(x: Tensor, after: bool) -> Tensor:
    """The sum over the shares before this one, or after it."""
    n, places = x.numel(), range(parts())
    sends = [n if (each < part() if after else each > part()) else 0 for each in places]
    receives = [n if (each > part() if after else each < part()) else 0 for each in places]
    received = _all_to_all(x.flatten().repeat(sum(map(bool, sends))), sends, receives)
    return received.view(-1, *x.shape).sum(0) if n else torch.empty_like(x)


@_sum_beside.register_fake
def _(x: Tensor, after: bool) -> Tensor:
    return x.new_empty(x.shape)


def _keep_side(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.after = inputs[1]


_sum_beside.register_autograd(
    lambda ctx, upstream: (_sum_beside(upstream, not ctx.after), None), setup_context=_keep_side
)


@torch.library.custom_op("chela::sum_of_all", mutates_args=())
def _sum_of_all(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group())
    return total


@_sum_of_all.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


_sum_of_all.register_autograd(lambda ctx, upstream: _sum_of_all(upstream))


@torch.library.custom_op("chela::of_all", mutates_args=())
def _of_all(x: Tensor) -> Tensor:
    n = x.numel()
    return _all_to_all(x.flatten().repeat(parts()), [n] * parts(), [n] * parts()).view(
        parts(), *x.shape
    )


@_of_all.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(parts(), *x.shape)


@torch.library.custom_op("chela::of_all_gradient", mutates_args=())
def _of_all_gradient(upstream: Tensor) -> Tensor:
    """The sum of what all have of this process's row of (P, ...)."""
    n = upstream[0].numel()
    received = _all_to_all(upstream.flatten(), [n] * parts(), [n] * parts())
    return received.view_as(upstream).sum(0)


@_of_all_gradient.register_fake
def _(upstream: Tensor) -> Tensor:
    return upstream.new_empty(upstream.shape[1:])


_of_all.register_autograd(lambda ctx, upstream: _of_all_gradient(upstream))
