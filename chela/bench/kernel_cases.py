"""What the kernels' benchmark measures: every implementation of every operation, at a shape.

Each function gives a case per implementation that runs on the device, with the same inputs, plain
PyTorch in float64 as the reference, and the fewest passes over memory that the operation needs.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from chela.bench.measure import MAX_ERROR, Case, Shape
from chela.kernels import choose, linear_attention, long_conv, short_conv
from chela.kernels.choice import Implementation
from chela.kernels.exponentials import exponential_sums
from chela.kernels.linear_attention.eager import finish
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
TOKEN_ERROR = 1e-2  # plain PyTorch rounds to bfloat16 up to six times in a row: 6e-3


def qkv(shape: Shape, device: torch.device) -> list[Tensor]:
    """Queries, keys and values (B, L, H, d) in bfloat16."""
    sizes = (shape.batch, shape.length, shape.channels // shape.head, shape.head)
    return [
        torch.randn(sizes, device=device, dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    ]


def causal_attention(shape: Shape, device: torch.device) -> list[Case]:
    """Causal linear attention."""

    def form(implementation: Implementation) -> Form:
        return lambda q, k, v: linear_attention.causal(q, k, v, implementation=implementation)[0]

    peers: dict[str, Form] = {}
    if importlib.util.find_spec("fla") is not None and device.type == "cuda":
        from fla.ops.linear_attn import chunk_linear_attn

        peers["fla-core"] = lambda q, k, v: chunk_linear_attn(q, k, v, 1.0, normalize=False)[0]
    name, inputs = "causal attention", partial(qkv, device=device)
    return cases(name, form, inputs, ATTENTION, shape, device, peers=peers)


def decayed_attention(shape: Shape, device: torch.device) -> list[Case]:
    """Causal attention that forgets, of values with one head of 128 queries and keys.

    Forward q, k, v and the output, backward q, k, v, its gradient and three, of which q and k have
    128 channels, and 3 times the numbers per head and token of the decay, in float32.
    """

    def form(implementation: Implementation) -> Form:
        return lambda q, k, v, log_decay: linear_attention.causal(
            q, k, v, log_decay=log_decay, implementation=implementation
        )[0]

    def inputs(shape: Shape) -> list[Tensor]:
        one = replace(shape, channels=SHARED_QK_DIM, head=SHARED_QK_DIM)
        q, k = qkv(one, device)[:2]
        v = qkv(shape, device)[0]
        log_decay = -(torch.rand(v.shape[:-1], device=device) ** 8)
        return [q, k, v, log_decay.requires_grad_()]

    heads = shape.channels // shape.head
    passes = 5 + 6 * SHARED_QK_DIM / shape.channels + 6 * heads / shape.channels
    plain = ("torch", "torch.compile")
    return cases("causal attention that forgets", form, inputs, passes, shape, device, plain)


def bidirectional_attention(shape: Shape, device: torch.device) -> list[Case]:
    """Bidirectional linear attention; its plain form is two einsums."""

    def form(implementation: Implementation) -> Form:
        return partial(linear_attention.bidirectional, implementation=implementation)

    inputs = partial(qkv, device=device)
    return cases("bidirectional attention", form, inputs, ATTENTION, shape, device)


def cases(
    operation: str,
    form: Callable[[Implementation], Form],
    inputs: Callable[[Shape], list[Tensor]],
    passes: float,
    shape: Shape,
    device: torch.device,
    plain: Sequence[str] = ("torch",),
    max_error: float = MAX_ERROR,
    peers: Mapping[str, Form] | None = None,
) -> list[Case]:
    """A case per form that runs on the device, held against plain PyTorch in float64.

    Args:
        operation: what is computed.
        form: the operation as an implementation has it.
        inputs: see ``Case``.
        passes: over an activation that the operation needs at least.
        shape: the sizes.
        device: where it runs.
        plain: how plain PyTorch is measured, ``torch``, ``torch.compile`` or both; on a CPU as it
            is.
        max_error: see ``Case``.
        peers: further forms.
    """
    forms = {"torch": form("torch")}
    if device.type == "cuda":
        compiled = torch.compile(form("torch"), dynamic=False, options=inductor_options())
        forms = {each: {**forms, "torch.compile": compiled}[each] for each in plain}
    if choose("auto", device) == "triton":
        forms["triton"] = form("triton")
    return [
        Case(
            operation,
            name,
            shape,
            inputs=inputs,
            call=call,
            reference=form("torch"),
            floor_bytes=lambda shape: round(passes * shape.pass_bytes),
            max_error=max_error,
        )
        for name, call in {**forms, **(peers or {})}.items()
    ]


def short_convolution(shape: Shape, device: torch.device) -> list[Case]:
    """Short convolution of width 5 around each token, with SiLU."""

    def convolve(implementation: Implementation) -> Form:
        return lambda x, weight, bias: short_conv.convolve(
            x, weight, bias, causal=False, activation="silu", implementation=implementation
        )

    def inputs(shape: Shape) -> list[Tensor]:
        x = activation(shape, device)
        return [x, parameter(shape.channels, 5, like=x), parameter(shape.channels, like=x)]

    return cases("short convolution", convolve, inputs, CONVOLUTION, shape, device)


def long_convolution(shape: Shape, device: torch.device) -> list[Case]:
    """Long convolution in both directions, with its skip; its plain form is torch.fft."""

    def convolve(implementation: Implementation) -> Form:
        return lambda x, kernel, skip: long_conv.convolve(
            x, kernel, skip, implementation=implementation
        )

    def inputs(shape: Shape) -> list[Tensor]:
        x = activation(shape, device)
        kernel = parameter(2, shape.channels, shape.length, like=x)
        return [x, kernel, parameter(shape.channels, like=x)]

    return cases("long convolution", convolve, inputs, CONVOLUTION, shape, device)


def exponentials(shape: Shape, device: torch.device) -> list[Case]:
    """The taps of one direction of S4D in float32, as many as tokens: written, and read backward.

    Whatever the batch, which has no part in them.
    """

    def form(implementation: Implementation) -> Form:
        return lambda rate, angle, real, imag: exponential_sums(
            rate, angle, real, imag, shape.length, implementation=implementation
        )

    def inputs(shape: Shape) -> list[Tensor]:
        low, high = math.log(1e-3), math.log(1e-1)
        dt = torch.empty(shape.channels, 1, device=device).uniform_(low, high).exp()
        rate = (-0.5 * dt).repeat(1, MODES)
        angle = dt * math.pi * torch.arange(MODES, device=device)
        amplitudes = torch.randn(2, 1, shape.channels, MODES, device=device)
        return [each.requires_grad_() for each in (rate, angle, *amplitudes)]

    return cases("exponentials", form, inputs, 4 / shape.batch, shape, device)


def wavelets(shape: Shape, device: torch.device) -> list[Case]:
    """The taps of one direction of a tree of wavelets in float32, as ``exponentials``."""

    def form(implementation: Implementation) -> Form:
        return lambda filters, weights: wavelet_tree(
            filters, weights, shape.length, implementation=implementation
        )

    def inputs(shape: Shape) -> list[Tensor]:
        kernel = WaveletKernel(shape.channels, shape.length, directions=1, taps=2)
        return [*kernel.to(device).parameters()]

    return cases("wavelets", form, inputs, 4 / shape.batch, shape, device)


def activation(shape: Shape, device: torch.device) -> Tensor:
    """An input (B, L, D) in bfloat16."""
    sizes = (shape.batch, shape.length, shape.channels)
    return torch.randn(sizes, device=device, dtype=torch.bfloat16, requires_grad=True)


def parameter(*sizes: int, like: Tensor) -> Tensor:
    """A parameter in float32, small enough that sums over it stay of the size of the input."""
    drawn: Tensor = torch.randn(sizes, device=like.device) / sizes[-1] ** 0.5
    return drawn.requires_grad_()


def feed_forward(shape: Shape, device: torch.device) -> list[Case]:
    """Norm, feed-forward part and residual: x and y forward, x and two gradients backward."""

    def form(implementation: Implementation) -> Form:
        return lambda x, gain, shift, w1, b1, w2, b2: mlp(
            x,
            Weights(w1, b1, w2, b2),
            norm=TokenNorm("layer", gain, shift, 1e-5),
            add_x=True,
            implementation=implementation,
        )

    def inputs(shape: Shape) -> list[Tensor]:
        x, dim = activation(shape, device), shape.channels
        return [x, *vectors(2, x), *map_of(dim, 2 * dim, x), *map_of(2 * dim, dim, x)]

    return token_cases("feed-forward", form, inputs, 5, shape, device)


def output_gate(shape: Shape, device: torch.device) -> list[Case]:
    """Gate, output projection and residual: 1 + 2 + 1 in and 1 out, then 4 in and 3 out."""

    def form(implementation: Implementation) -> Form:
        return lambda z, o, x, w1, b1, w2, b2: mlp(
            z, Weights(w1, b1, w2, b2), factor=o, residual=x, implementation=implementation
        )

    def inputs(shape: Shape) -> list[Tensor]:
        dim = shape.channels
        z, x = activation(shape, device), activation(shape, device)
        o = activation(replace(shape, channels=2 * dim), device)
        return [z, o, x, *map_of(dim, 2 * dim, z), *map_of(2 * dim, dim, z)]

    return token_cases("output gate", form, inputs, 12, shape, device)


def norm_and_value(shape: Shape, device: torch.device) -> list[Case]:
    """Norm and values: 1 in and 1 + 2 out, then 1 + 1 + 2 in and 1 out."""

    def form(implementation: Implementation) -> Form:
        return lambda x, gain, shift, w, b: norm_linear(
            x, w, b, norm=TokenNorm("layer", gain, shift, 1e-5), implementation=implementation
        )

    def inputs(shape: Shape) -> list[Tensor]:
        x, dim = activation(shape, device), shape.channels
        return [x, *vectors(2, x), *map_of(dim, 2 * dim, x)]

    return token_cases("norm and value", form, inputs, 9, shape, device)


def queries_and_keys(shape: Shape, device: torch.device) -> list[Case]:
    """Queries and keys: 3 passes over the tokens and, there and back, both of them."""

    def form(implementation: Implementation) -> Form:
        return lambda z, w, b, *affines: query_key(
            z, w, b, Affines(*affines), implementation=implementation
        )

    def inputs(shape: Shape) -> list[Tensor]:
        z = activation(shape, device)
        affines = vectors(4, activation(replace(shape, length=1, channels=QK_DIM), device))
        return [z, *map_of(shape.channels, QK_DIM, z), *affines]

    passes = 3 + 4 * QK_DIM / shape.channels
    return token_cases("queries and keys", form, inputs, passes, shape, device)


def head_norm_and_gate(shape: Shape, device: torch.device) -> list[Case]:
    """Of one head that is wider than attention's kernels: 2 in and 1 out, then 3 in and 2 out."""

    def form(implementation: Implementation) -> Form:
        if implementation == "torch":
            return lambda o, gate, weight: finish(o, weight, gate, None)
        from chela.kernels.linear_attention.epilogue import attention_epilogue

        return lambda o, gate, weight: attention_epilogue(o, weight, gate, None)

    def inputs(shape: Shape) -> list[Tensor]:
        two = [activation(shape, device).detach()[:, :, None] for _ in range(2)]  # (B, L, 1, dv)
        return [*[x.requires_grad_() for x in two], *vectors(1, two[0])]

    return token_cases("head norm and gate", form, inputs, 8, shape, device)


def vectors(count: int, like: Tensor) -> list[Tensor]:
    """Gains or shifts (D,), near 1."""
    drawn = [1 + 0.1 * torch.randn(like.shape[-1], device=like.device) for _ in range(count)]
    return [vector.requires_grad_() for vector in drawn]


def map_of(fan_in: int, fan_out: int, like: Tensor) -> list[Tensor]:
    """Weight (out, in) and bias (out,)."""
    return [parameter(fan_out, fan_in, like=like), parameter(fan_out, like=like)]


def token_cases(
    operation: str,
    form: Callable[[Implementation], Form],
    inputs: Callable[[Shape], list[Tensor]],
    passes: float,
    shape: Shape,
    device: torch.device,
) -> list[Case]:
    """Of what is done token by token: the plain form compiled, as training has it on a GPU."""
    plain = ("torch.compile",)
    return cases(operation, form, inputs, passes, shape, device, plain, TOKEN_ERROR)
