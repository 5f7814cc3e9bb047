"""What the kernels' benchmark measures: every implementation of every operation, at a shape.

Each function gives a case per implementation that runs on the device, with the same inputs, plain
PyTorch in float64 as the reference, and the fewest passes over memory that the operation needs.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from chela.bench.measure import MAX_ERROR, Case, Shape
from chela.kernels import choose, linear_attention, long_conv, short_conv
from chela.kernels.exponentials import exponential_sums
from chela.kernels.norm_linear import norm_linear
from chela.kernels.query_key import Affines, query_key
from chela.kernels.token_mlp import Weights, mlp
from chela.kernels.tokens import TokenNorm
from chela.kernels.wavelet_tree import wavelet_tree
from chela.mixers.long_kernels import WaveletKernel
from chela.training.build import inductor_options

Form = Callable[..., Tensor | tuple[Tensor, ...]]
ATTENTION = 11  # passes: forward q, k, v and the output; backward q, k, v, its gradient and three
CONVOLUTION = 5  # passes: forward x and y, backward x and two gradients
QK_DIM = 64  # channels of queries and keys in a block; its hidden channels are twice its own
MODES = 32  # of a channel: S4D's 64 real states
SHARED_QK_DIM = 128  # of one head of queries and keys for all heads of values
# What a token does by itself, in the plain form that training has on a GPU: it rounds to bfloat16
# up to six times in a row, 6e-3.
TOKEN_WISE: dict[str, Any] = {"plain": ("torch.compile",), "max_error": 1e-2}


def cases(
    operation: str,
    call: Form,
    inputs: Callable[[Shape], list[Tensor]],
    passes: float,
    shape: Shape,
    device: torch.device,
    plain: Sequence[str] = ("torch",),
    peers: Mapping[str, Form] | None = None,
    max_error: float = MAX_ERROR,
) -> list[Case]:
    """A case for each form of ``call(*inputs, implementation=...)`` that the device has.

    Args:
        operation: its name.
        call: the operation.
        inputs: of a shape.
        passes: over an activation, at least.
        shape: what is measured.
        device: where; on a CPU nothing is compiled.
        plain: which of ``torch`` and ``torch.compile``.
        peers: forms that others wrote.
        max_error: see ``Case``.
    """
    reference: Form = lambda *leaves: call(*leaves, implementation="torch")  # noqa: E731
    forms: dict[str, Form] = {"torch": reference}
    if device.type == "cuda" and "torch.compile" in plain:
        compiled = torch.compile(reference, dynamic=False, options=inductor_options())
        forms = {name: compiled if name == "torch.compile" else reference for name in plain}
    if choose("auto", device) == "triton":
        forms["triton"] = lambda *leaves: call(*leaves, implementation="triton")
    return [
        Case(
            operation,
            name,
            shape,
            inputs=inputs,
            call=form,
            reference=reference,
            floor_bytes=lambda shape: round(passes * shape.pass_bytes),
            max_error=max_error,
        )
        for name, form in {**forms, **(peers or {})}.items()
    ]


def qkv(shape: Shape, device: torch.device) -> list[Tensor]:
    """Queries, keys and values (B, L, H, d) in bfloat16."""
    heads = (shape.channels // shape.head, shape.head)
    three = [activation(shape, device).detach().unflatten(-1, heads) for _ in range(3)]
    return [x.requires_grad_() for x in three]


def causal_attention(shape: Shape, device: torch.device) -> list[Case]:
    """Causal linear attention."""

    def call(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Tensor:
        return linear_attention.causal(q, k, v, **how)[0]

    peers: dict[str, Form] = {}
    if importlib.util.find_spec("fla") is not None and device.type == "cuda":
        from fla.ops.linear_attn import chunk_linear_attn

        peers["fla-core"] = lambda q, k, v: chunk_linear_attn(q, k, v, 1.0, normalize=False)[0]
    name = "causal attention"
    return cases(name, call, lambda s: qkv(s, device), ATTENTION, shape, device, peers=peers)


def decayed_attention(shape: Shape, device: torch.device) -> list[Case]:
    """Causal attention that forgets, of values with one head of 128 queries and keys.

    Forward q, k, v and the output, backward q, k, v, its gradient and three, of which q and k have
    128 channels, and 3 times the numbers per head and token of the decay, in float32.
    """

    def call(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, **how: Any) -> Tensor:
        return linear_attention.causal(q, k, v, log_decay=log_decay, **how)[0]

    def inputs(shape: Shape) -> list[Tensor]:
        one = replace(shape, channels=SHARED_QK_DIM, head=SHARED_QK_DIM)
        q, k = qkv(one, device)[:2]
        v = qkv(shape, device)[0]
        log_decay = -(torch.rand(v.shape[:-1], device=device) ** 8)
        return [q, k, v, log_decay.requires_grad_()]

    heads = shape.channels // shape.head
    passes = 5 + 6 * SHARED_QK_DIM / shape.channels + 6 * heads / shape.channels
    both = ("torch", "torch.compile")
    return cases("causal attention that forgets", call, inputs, passes, shape, device, plain=both)


def bidirectional_attention(shape: Shape, device: torch.device) -> list[Case]:
    """Bidirectional linear attention; its plain form is two einsums."""
    call = linear_attention.bidirectional
    name = "bidirectional attention"
    return cases(name, call, lambda s: qkv(s, device), ATTENTION, shape, device)


def short_convolution(shape: Shape, device: torch.device) -> list[Case]:
    """Short convolution of width 5 around each token, with SiLU."""

    def call(x: Tensor, weight: Tensor, bias: Tensor, **how: Any) -> Tensor:
        return short_conv.convolve(x, weight, bias, causal=False, activation="silu", **how)

    def inputs(shape: Shape) -> list[Tensor]:
        x = activation(shape, device)
        return [x, parameter(shape.channels, 5, like=x), parameter(shape.channels, like=x)]

    return cases("short convolution", call, inputs, CONVOLUTION, shape, device)


def long_convolution(shape: Shape, device: torch.device) -> list[Case]:
    """Long convolution in both directions, with its skip; its plain form is torch.fft."""

    def inputs(shape: Shape) -> list[Tensor]:
        x = activation(shape, device)
        kernel = parameter(2, shape.channels, shape.length, like=x)
        return [x, kernel, parameter(shape.channels, like=x)]

    return cases("long convolution", long_conv.convolve, inputs, CONVOLUTION, shape, device)


def exponentials(shape: Shape, device: torch.device) -> list[Case]:
    """The taps of one direction of S4D in float32, as many as tokens: written, and read backward.

    Whatever the batch, which has no part in them.
    """

    def call(rate: Tensor, angle: Tensor, real: Tensor, imag: Tensor, **how: Any) -> Tensor:
        return exponential_sums(rate, angle, real, imag, shape.length, **how)

    def inputs(shape: Shape) -> list[Tensor]:
        low, high = math.log(1e-3), math.log(1e-1)
        dt = torch.empty(shape.channels, 1, device=device).uniform_(low, high).exp()
        rate = (-0.5 * dt).repeat(1, MODES)
        angle = dt * math.pi * torch.arange(MODES, device=device)
        amplitudes = torch.randn(2, 1, shape.channels, MODES, device=device)
        return [each.requires_grad_() for each in (rate, angle, *amplitudes)]

    return cases("exponentials", call, inputs, 4 / shape.batch, shape, device)


def wavelets(shape: Shape, device: torch.device) -> list[Case]:
    """The taps of one direction of a tree of wavelets in float32, as ``exponentials``."""

    def call(filters: Tensor, weights: Tensor, **how: Any) -> Tensor:
        return wavelet_tree(filters, weights, shape.length, **how)

    def inputs(shape: Shape) -> list[Tensor]:
        kernel = WaveletKernel(shape.channels, shape.length, directions=1, taps=2)
        return [*kernel.to(device).parameters()]

    return cases("wavelets", call, inputs, 4 / shape.batch, shape, device)


def feed_forward(shape: Shape, device: torch.device) -> list[Case]:
    """Norm, feed-forward part and residual: x and y forward, x and two gradients backward."""

    def call(x: Tensor, gain: Tensor, shift: Tensor, *weights: Tensor, **how: Any) -> Tensor:
        norm = TokenNorm("layer", gain, shift, 1e-5)
        return mlp(x, Weights(*weights), norm=norm, add_x=True, **how)

    def inputs(shape: Shape) -> list[Tensor]:
        x, dim = activation(shape, device), shape.channels
        return [x, *vectors(2, x), *map_of(dim, 2 * dim, x), *map_of(2 * dim, dim, x)]

    return cases("feed-forward", call, inputs, 5, shape, device, **TOKEN_WISE)


def output_gate(shape: Shape, device: torch.device) -> list[Case]:
    """Gate, output projection and residual: 1 + 2 + 1 in and 1 out, then 4 in and 3 out."""

    def call(z: Tensor, o: Tensor, x: Tensor, *weights: Tensor, **how: Any) -> Tensor:
        return mlp(z, Weights(*weights), factor=o, residual=x, **how)

    def inputs(shape: Shape) -> list[Tensor]:
        z, x = (activation(shape, device) for _ in range(2))
        dim = shape.channels
        o = activation(replace(shape, channels=2 * dim), device)
        return [z, o, x, *map_of(dim, 2 * dim, z), *map_of(2 * dim, dim, z)]

    return cases("output gate", call, inputs, 12, shape, device, **TOKEN_WISE)


def norm_and_value(shape: Shape, device: torch.device) -> list[Case]:
    """Norm and values: 1 in and 1 + 2 out, then 1 + 1 + 2 in and 1 out."""

    def call(
        x: Tensor, gain: Tensor, shift: Tensor, w: Tensor, b: Tensor, **how: Any
    ) -> tuple[Tensor, Tensor]:
        return norm_linear(x, w, b, norm=TokenNorm("layer", gain, shift, 1e-5), **how)

    def inputs(shape: Shape) -> list[Tensor]:
        x, dim = activation(shape, device), shape.channels
        return [x, *vectors(2, x), *map_of(dim, 2 * dim, x)]

    return cases("norm and value", call, inputs, 9, shape, device, **TOKEN_WISE)


def queries_and_keys(shape: Shape, device: torch.device) -> list[Case]:
    """Queries and keys: 3 passes over the tokens and, there and back, both of them."""

    def call(
        z: Tensor, w: Tensor, b: Tensor, *affines: Tensor, **how: Any
    ) -> tuple[Tensor, Tensor]:
        return query_key(z, w, b, Affines(*affines), **how)

    def inputs(shape: Shape) -> list[Tensor]:
        z = activation(shape, device)
        affines = vectors(4, activation(replace(shape, length=1, channels=QK_DIM), device))
        return [z, *map_of(shape.channels, QK_DIM, z), *affines]

    passes = 3 + 4 * QK_DIM / shape.channels
    return cases("queries and keys", call, inputs, passes, shape, device, **TOKEN_WISE)


def head_norm_and_gate(shape: Shape, device: torch.device) -> list[Case]:
    """Of one head that is wider than attention's kernels: 2 in and 1 out, then 3 in and 2 out."""

    def call(o: Tensor, gate: Tensor, weight: Tensor, **how: Any) -> Tensor:
        return linear_attention.finish(o, norm_weight=weight, gate=gate, **how)

    def inputs(shape: Shape) -> list[Tensor]:
        two = [activation(shape, device).detach()[:, :, None] for _ in range(2)]  # (B, L, 1, dv)
        return [*[x.requires_grad_() for x in two], *vectors(1, two[0])]

    return cases("head norm and gate", call, inputs, 8, shape, device, **TOKEN_WISE)


def activation(shape: Shape, device: torch.device) -> Tensor:
    """An input (B, L, D) in bfloat16."""
    sizes = (shape.batch, shape.length, shape.channels)
    return torch.randn(sizes, device=device, dtype=torch.bfloat16, requires_grad=True)


def parameter(*sizes: int, like: Tensor) -> Tensor:
    """A parameter in float32, small enough that sums over it stay of the size of the input."""
    drawn: Tensor = torch.randn(sizes, device=like.device) / sizes[-1] ** 0.5
    return drawn.requires_grad_()


def vectors(count: int, like: Tensor) -> list[Tensor]:
    """Gains or shifts (D,), near 1."""
    drawn = [1 + 0.1 * torch.randn(like.shape[-1], device=like.device) for _ in range(count)]
    return [vector.requires_grad_() for vector in drawn]


def map_of(fan_in: int, fan_out: int, like: Tensor) -> list[Tensor]:
    """Weight (out, in) and bias (out,)."""
    return [parameter(fan_out, fan_in, like=like), parameter(fan_out, like=like)]
