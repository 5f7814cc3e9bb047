"""The operations that look across tokens, whoever holds these: one process, or several a share.

With one process each is the operation itself; what several exchange for it is
``chela.layers.exchanges``'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from chela.kernels import linear_attention, short_conv
from chela.kernels.choice import Implementation
from chela.kernels.short_conv import Activation
from chela.layers.exchanges import (
    by_channel,
    by_time,
    of_all,
    sum_before,
    sum_of_all,
    true_counts,
    with_halo,
)
from chela.layers.sequence import SHORTEST, part, parts


@dataclass(frozen=True)
class Shares:
    """A batch whose sequences P devices hold together, and what these have to send at least.

    All are bytes that leave a device in a forward pass, of all devices together; a backward pass
    sends as many. A lower bound by linear algebra: what a device does not have, and its outputs
    depend on, it must be sent, in as many numbers as that dependence has rank.
    """

    batch: int
    length: int  # L, of the whole sequences
    parts: int  # P
    size: int  # bytes of an activation's number

    def halos(self, width: int, dim: int) -> int:
        """Of a short convolution: (P - 1) B (width - 1) D numbers. Ours sends no more."""
        return (self.parts - 1) * self.batch * (width - 1) * dim * self.size

    def channels(self, dim: int, causal: bool) -> int:
        """Of a convolution as long as the sequences: B L D numbers, causal (P - 1) / P of them.

        Each share depends on all others through L / P numbers a channel, the first of a causal one
        on none. An all-to-all to channels and back sends 2 (P - 1) / P times B L D numbers: with
        two devices the least, twice as much at most; of a causal one always twice, for which each
        device convolves as much as the others.
        """
        receiving = 0 if self.parts == 1 else self.parts - causal
        return receiving * self.batch * self.length * dim * self.size // self.parts

    def states(self, numbers: int, causal: bool) -> int:
        """Of linear attention, with ``numbers`` in a sequence's state, in float32 or better.

        A running sum needs (P - 1) B states, a sum that all have twice as many. Ours sends P / 2
        times the former, with a decay P times, in one exchange instead of P - 1 after each other,
        and just the latter.
        """
        rounds = 1 if causal else 2
        return rounds * (self.parts - 1) * self.batch * numbers * max(self.size, 4)


def convolve_short(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    causal: bool,
    activation: Activation | None = None,
    implementation: Implementation = "torch",
) -> Tensor:
    """``short_conv.convolve`` of x (B, l, D): neighbours exchange what it looks at."""
    before, after = _reach(weight.shape[1], causal)
    seen = x if parts() == 1 else with_halo(x, before, after)
    y = short_conv.convolve(
        seen, weight, bias, causal=causal, activation=activation, implementation=implementation
    )
    return y if parts() == 1 else y[:, before : before + x.shape[1]]


def short_obstacle(width: int, causal: bool) -> str | None:
    """Why its tokens cannot be those of several devices, and what to do; None: they can."""
    reach = max(_reach(width, causal))
    if reach <= SHORTEST:
        return None
    widest = SHORTEST + 1 if causal else 2 * SHORTEST + 1
    return (
        f"a short convolution of width {width} looks at {reach} tokens of the next device, which "
        f"may hold {SHORTEST}; make its width {widest} at most"
    )


def _reach(width: int, causal: bool) -> tuple[int, int]:
    """How many tokens before and after a token are looked at."""
    after = 0 if causal else (width - 1) // 2
    return width - 1 - after, after


def before(x: Tensor) -> Tensor:
    """What the token before each has in x (B, l, D); zeros at the first of a sequence."""
    if parts() == 1:
        return F.pad(x, (0, 0, 1, -1))
    return with_halo(x, 1, 0)[:, :-1]


def convolve_long(x: Tensor, length: int, convolve: Callable[[Tensor], Tensor]) -> Tensor:
    """A convolution of whole sequences: each process has all positions of its own channels.

    Args:
        x: (B, l, D).
        length: L, of the whole sequences; what is held beyond is padding.
        convolve: (B, L, d) to (B, L, d), of ``own_channels(D)``.

    Returns:
        (B, l, D).
    """
    if parts() == 1:
        return convolve(x)
    padding = x.shape[1] * parts() - length
    y = convolve(by_channel(x)[:, :length])
    return by_time(F.pad(y, (0, 0, 0, padding)) if padding else y, x.shape[-1])


def bidirectional_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    *,
    norm_weight: Tensor | None = None,
    gate: Tensor | None = None,
    implementation: Implementation = "torch",
) -> Tensor:
    """``linear_attention.bidirectional`` of (B, l, H, d): the states of all shares are added up."""
    if parts() == 1:
        return linear_attention.bidirectional(
            q, k, v, lengths, norm_weight=norm_weight, gate=gate, implementation=implementation
        )
    state = sum_of_all(linear_attention.state(k, v, lengths))  # (B, H, dk, dv)
    o = linear_attention.read(q, state / true_counts(lengths, v.shape[1]), lengths)
    return linear_attention.finish(
        o, lengths, norm_weight=norm_weight, gate=gate, implementation=implementation
    )


def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    chunk_size: int = 64,
    *,
    log_decay: Tensor | None = None,
    norm_weight: Tensor | None = None,
    gate: Tensor | None = None,
    implementation: Implementation = "torch",
) -> tuple[Tensor, Tensor]:
    """``linear_attention.causal`` of (B, l, H, d): each share goes on from those before it.

    The state that a share starts from is known when all have been through their own, and is read
    then: no process waits for another one's tokens. With a decay the states are summed up first.
    """
    if parts() == 1 or log_decay is not None:
        first = None
        if parts() > 1 and log_decay is not None:
            first = _left_before(k, v, log_decay, lengths)
        return linear_attention.causal(
            q, k, v, lengths, chunk_size, first,
            log_decay=log_decay, norm_weight=norm_weight, gate=gate, implementation=implementation,
        )  # fmt: skip
    o, state = linear_attention.causal(q, k, v, lengths, chunk_size, implementation=implementation)
    first = sum_before(state)  # (B, H, dk, dv)
    o = o + linear_attention.read(q, first, lengths)
    out = linear_attention.finish(
        o, lengths, norm_weight=norm_weight, gate=gate, implementation=implementation
    )
    return out, first + state


def _left_before(k: Tensor, v: Tensor, log_decay: Tensor, lengths: Tensor | None) -> Tensor:
    """The state (B, H, dk, dv) that is left of the shares before this one, where it begins."""
    state, left = linear_attention.decayed_state(k, v, log_decay, lengths)
    # one exchange, of which each process has a gradient to send back, the first as well
    states, lefts = of_all(torch.cat([state.flatten(2), left[..., None]], -1)).split(
        [state[0, 0].numel(), 1], dim=-1
    )  # (P, B, H, dk * dv), (P, B, H, 1)
    first = states[0] * 0
    for each in range(part()):
        first = first * lefts[each] + states[each]
    return first.view_as(state)
