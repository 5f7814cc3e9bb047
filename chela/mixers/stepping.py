"""How a causal mixer goes on a token at a time: a state stands for all that came before.

    y, state = mixer.prefill(x, lengths, room)    a prompt (B, L, D), all tokens at once
    y_t, state = mixer.step(x_t, state)           one more token (B, 1, D) of each sequence

gives what ``forward`` gives for the whole, in evaluation. ``room`` is how many steps will follow,
as far as that is known: a cache that grows makes place for them at once. A mixer without the two
methods has no such form.

A state is a tree of tuples. Its tensors have a row for each sequence, (B, ...); what is no tensor
serves all of them, and an integer is for how many steps there is place without more memory.
``step`` may write into the state that it is given: go on with what it returns, and take a copy by
``select`` to go two ways.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from chela.kernels import zero_padding
from chela.kernels.precision import accumulation_dtype, without_autocast

State = Any  # the tree of tuples above
NO_END = sys.maxsize


class Steps(Protocol):
    """What a mixer has that can go on a token at a time."""

    def prefill(
        self, x: Tensor, lengths: Tensor | None = None, room: int = 0
    ) -> tuple[Tensor, State]:
        """x (B, L, D) to (B, L, D) as ``forward``, and the state behind each true length."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The next token (B, 1, D) of each sequence to (B, 1, D), and the state behind it."""


def causal_only(module: nn.Module) -> None:
    """Refuse what sees tokens that are still to come.

    Raises:
        ValueError: its ``causal`` is false.
    """
    if not module.causal:
        raise ValueError(
            f"{type(module).__name__} is not causal: it sees the whole sequence, and cannot go on "
            "a token at a time; build the model with causal=True"
        )


def select(state: State, rows: Tensor) -> State:
    """A copy of the state for some sequences, in any order, also more than once.

    Args:
        state: of B sequences.
        rows: (n,) integers from 0 to B - 1.
    """
    return tree_map_only(Tensor, lambda each: each.index_select(0, rows), state)


def steps_left(state: State) -> int:
    """For how many steps a state has place without more memory."""
    return min([NO_END, *(each for each in tree_leaves(state) if isinstance(each, int))])


def token_counts(x: Tensor, lengths: Tensor | None) -> Tensor:
    """How many tokens each sequence of x (B, L, ...) has, (B,), for a state to keep as its own."""
    if lengths is None:
        return torch.full(x.shape[:1], x.shape[1], device=x.device)
    return lengths.clone()


def recent(x: Tensor, lengths: Tensor | None, count: int) -> Tensor:
    """The last ``count`` true tokens of each sequence (B, count, D), zeros before its first.

    Args:
        x: (B, L, D).
        lengths: (B,) true lengths, None when nothing is padded.
        count: any number.
    """
    missing = max(0, count - x.shape[1])
    if lengths is None:
        return F.pad(x[:, x.shape[1] + missing - count :], (0, 0, missing, 0))
    x = F.pad(zero_padding(x, lengths), (0, 0, count, 0))  # the tokens before the first are zeros
    places = lengths[:, None] + torch.arange(count, device=x.device)  # (B, count)
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))


class Modes(NamedTuple):
    """Exponentials whose sum is a kernel: K_l = Re sum_n amplitude_n exp(l log_decay_n)."""

    log_decay: Tensor  # (D, N), real or complex
    amplitude: Tensor  # (D, N)

    def read(self, h: Tensor) -> Tensor:
        """What states (B, D, N) give, (B, D)."""
        y = (self.amplitude * h).sum(-1)
        return y.real if y.is_complex() else y

    def behind(self, x: Tensor) -> Tensor:
        """The states (B, D, N) behind a sequence (B, L, D): sum_l exp(l log_decay) x_(L-1-l).

        In two steps, over pieces of about sqrt(L) tokens and then over the pieces: nothing is as
        large as L times N.
        """
        length = x.shape[1]
        width = math.isqrt(max(length - 1, 0)) + 1
        pieces = -(-length // width)
        x = F.pad(x, (0, 0, pieces * width - length, 0)).unflatten(1, (pieces, width))
        lags = torch.arange(max(width, pieces), device=x.device).flip(0).to(x.dtype)
        within = torch.exp(self.log_decay[..., None] * lags[-width:])  # (D, N, W)
        across = torch.exp(self.log_decay[..., None] * width * lags[len(lags) - pieces :])
        if not within.is_complex():
            parts = torch.einsum("bpwd,dnw->bpdn", x, within)
        else:  # x is real: half of the products
            both = torch.einsum("bpwd,dnwc->bpdnc", x, torch.view_as_real(within))
            parts = torch.view_as_complex(both.contiguous())
        return torch.einsum("bpdn,dnp->bdn", parts, across)


class FilterState(NamedTuple):
    """Where a filter is in its sequences."""

    filter: Filter
    past: Tensor  # (B, D, K - 1), the latest inputs, the newest last
    modes: Tensor | None  # (B, D, N)


@dataclass(frozen=True)
class Filter:
    """A causal convolution as it is applied to one token: a few taps, and what recurs.

    Memory and time of a step are O(D (K + N)): a kernel that is a sum of exponentials needs N of
    them, however long it is. A kernel of free form has K taps, the latest K inputs are kept, and
    what is further back is beyond its reach.
    """

    taps: Tensor  # (D, K), lag by lag
    bias: Tensor | None = None  # (D,)
    modes: Modes | None = None

    @cached_property
    def _latest_last(self) -> Tensor:
        return self.taps.flip(-1)

    def begin(self, x: Tensor, lengths: Tensor | None) -> FilterState:
        """The state behind x (B, L, D), which is zero at padded positions."""
        past = recent(x, lengths, self.taps.shape[1] - 1).mT.contiguous()  # (B, D, K - 1)
        if self.modes is None:
            return FilterState(self, past, None)
        with without_autocast(x):
            whole = x if lengths is None else recent(x, lengths, x.shape[1])
            return FilterState(self, past, self.modes.behind(whole.to(accumulation_dtype(x))))

    def step(self, x: Tensor, state: FilterState) -> tuple[Tensor, FilterState]:
        """The next token (B, 1, D) to (B, 1, D), in the dtype of x."""
        with without_autocast(x):
            seen = torch.cat([state.past, x.mT], dim=-1)  # (B, D, K)
            wide = accumulation_dtype(x)
            y = torch.einsum("bdk,dk->bd", seen.to(wide), self._latest_last.to(wide))  # (B, D)
            h = state.modes
            if self.modes is not None and h is not None:
                h = self.modes.log_decay.exp() * h + x.mT.to(wide)  # (B, D, N)
                y = y + self.modes.read(h)
            if self.bias is not None:
                y = y + self.bias
            return y.to(x.dtype)[:, None], FilterState(self, seen[..., 1:], h)


class KeyValues(NamedTuple):
    """Keys and values of attention, (B, C, ...) each, of which the first ``tokens`` are there."""

    keys: Tensor
    values: Tensor
    tokens: Tensor  # (B,) how many there were so far
    left: int  # steps until all places are taken; NO_END where they are taken anew

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, lengths: Tensor | None, room: int) -> KeyValues:
        """Those of a prompt, (B, L, ...), and place for ``room`` more."""
        tokens = token_counts(keys, lengths)
        return cls(_longer(keys, room), _longer(values, room), tokens, room)

    def add(self, key: Tensor, value: Tensor, limit: float = math.inf) -> KeyValues:
        """With those of one more token, (B, 1, ...), in the same memory or in twice as much.

        Raises:
            ValueError: ``limit`` places are taken.
        """
        keys, values, tokens, left = self
        if left == 0:
            places = keys.shape[1]
            left = int(min(max(places, 64), limit - places))
            if left < 1:
                raise ValueError(
                    f"all {places} positions that the model was built for are taken; build it for "
                    "longer sequences, or generate fewer tokens"
                )
            keys, values = _longer(keys, left), _longer(values, left)
        return KeyValues(keys, values, tokens, left - 1).put(key, value, tokens)

    def put(self, key: Tensor, value: Tensor, place: Tensor) -> KeyValues:
        """With those of one more token, (B, 1, ...), in the places (B,)."""
        rows = torch.arange(len(place), device=place.device)
        self.keys[rows, place] = key[:, 0].to(self.keys.dtype)
        self.values[rows, place] = value[:, 0].to(self.values.dtype)
        return self._replace(tokens=self.tokens + 1)


def _longer(x: Tensor, more: int) -> Tensor:
    return torch.cat([x, x.new_zeros(len(x), more, *x.shape[2:])], dim=1)
