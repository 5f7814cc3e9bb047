"""Error and speed of every implementation of every operation, beside the floor and the peers.

    python scripts/bench_kernels.py                              the shapes of four LRA tasks
    python scripts/bench_kernels.py --operation causal           those whose name contains it
    python scripts/bench_kernels.py --shape 8x2048x512           one shape: batch, length, channels
    python scripts/bench_kernels.py --plot lengths.png           time against length, 1K to 1M

A further operation is a further line in ``REGISTRY``.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from chela.kernels import choose, linear_attention, long_conv, short_conv
from chela.kernels.bench import HEADER, Case, Result, Shape, copy_bandwidth, draw, measure
from chela.kernels.choice import Asked, Implementation, use_kernels
from chela.model import ChelaConfig, ChelaMixer
from chela.model.backbone import BackboneConfig
from chela.model.block import Block
from chela.model.ffn import MLP

TASKS = ("64x1024x512", "64x2048x256", "64x4096x256", "16x16384x256")  # Image to Path-X
LENGTHS = [f"1x{2**power}x128" for power in range(10, 21, 2)]  # 1K to 1M


def qkv(shape: Shape, device: torch.device) -> list[Tensor]:
    """Queries, keys and values (B, L, H, d) in bfloat16."""
    sizes = (shape.batch, shape.length, shape.channels // shape.head, shape.head)
    return [
        torch.randn(sizes, device=device, dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    ]


def attention_bytes(shape: Shape) -> int:
    """Forward q, k, v and the output; backward q, k, v, its gradient and three gradients."""
    return 11 * shape.pass_bytes


def causal_attention(shape: Shape, device: torch.device) -> list[Case]:
    """Causal linear attention."""
    forms: dict[str, Callable[..., Tensor]] = {
        "torch": lambda q, k, v: linear_attention.causal(q, k, v)[0]
    }
    if choose("auto", device) == "triton":
        forms["triton"] = lambda q, k, v: linear_attention.causal(q, k, v, implementation="triton")[
            0
        ]
    if importlib.util.find_spec("fla") is not None and device.type == "cuda":
        from fla.ops.linear_attn import chunk_linear_attn

        forms["fla-core"] = lambda q, k, v: chunk_linear_attn(q, k, v, 1.0, normalize=False)[0]
    return attention_cases("causal attention", forms, shape, device)


def bidirectional_attention(shape: Shape, device: torch.device) -> list[Case]:
    """Bidirectional linear attention; its plain form is two einsums."""
    forms: dict[str, Callable[..., Tensor]] = {"torch": linear_attention.bidirectional}
    if choose("auto", device) == "triton":
        forms["triton"] = lambda q, k, v: linear_attention.bidirectional(
            q, k, v, implementation="triton"
        )
    return attention_cases("bidirectional attention", forms, shape, device)


def attention_cases(
    operation: str, forms: dict[str, Callable[..., Tensor]], shape: Shape, device: torch.device
) -> list[Case]:
    """A case per implementation; the plain form, chunked, is the reference in float64."""
    return [
        Case(
            operation,
            name,
            shape,
            inputs=lambda shape: qkv(shape, device),
            call=form,
            reference=forms["torch"],
            floor_bytes=attention_bytes,
        )
        for name, form in forms.items()
    ]


def short_convolution(shape: Shape, device: torch.device) -> list[Case]:
    """Short convolution of width 5 around each token, with SiLU."""

    def convolve(implementation: Implementation) -> Callable[..., Tensor]:
        return lambda x, weight, bias: short_conv.convolve(
            x, weight, bias, causal=False, activation="silu", implementation=implementation
        )

    def inputs(shape: Shape) -> list[Tensor]:
        x = activation(shape, device)
        return [x, parameter(shape.channels, 5, like=x), parameter(shape.channels, like=x)]

    return convolution_cases("short convolution", convolve, inputs, shape, device)


def long_convolution(shape: Shape, device: torch.device) -> list[Case]:
    """Long convolution in both directions, with its skip; its plain form is torch.fft."""

    def convolve(implementation: Implementation) -> Callable[..., Tensor]:
        return lambda x, kernel, skip: long_conv.convolve(
            x, kernel, skip, implementation=implementation
        )

    def inputs(shape: Shape) -> list[Tensor]:
        x = activation(shape, device)
        kernel = parameter(2, shape.channels, shape.length, like=x)
        return [x, kernel, parameter(shape.channels, like=x)]

    return convolution_cases("long convolution", convolve, inputs, shape, device)


def activation(shape: Shape, device: torch.device) -> Tensor:
    """An input (B, L, D) in bfloat16."""
    sizes = (shape.batch, shape.length, shape.channels)
    return torch.randn(sizes, device=device, dtype=torch.bfloat16, requires_grad=True)


def parameter(*sizes: int, like: Tensor) -> Tensor:
    """A parameter in float32, small enough that sums over it stay of the size of the input."""
    drawn: Tensor = torch.randn(sizes, device=like.device) / sizes[-1] ** 0.5
    return drawn.requires_grad_()


def convolution_cases(
    operation: str,
    convolve: Callable[[Implementation], Callable[..., Tensor]],
    inputs: Callable[[Shape], list[Tensor]],
    shape: Shape,
    device: torch.device,
) -> list[Case]:
    """A case per implementation; forward x and y, backward x and two gradients: 5 passes."""
    names: list[Implementation] = ["torch"]
    if choose("auto", device) == "triton":
        names.append("triton")
    return [
        Case(
            operation,
            name,
            shape,
            inputs=inputs,
            call=convolve(name),
            reference=convolve("torch"),
            floor_bytes=lambda shape: 5 * shape.pass_bytes,
        )
        for name in names
    ]


def chela_block(shape: Shape, device: torch.device) -> list[Case]:
    """A whole CHELA block in training, norms and feed-forward part included, dropout off.

    Compiled in both forms on a GPU, as training compiles it. The values' channels are twice the
    block's, and cut into heads of ``shape.head``.
    """
    heads, rest = divmod(2 * shape.channels, shape.head)
    if rest:
        return []  # no such heads at this width
    backbone = BackboneConfig(dim=shape.channels)
    config = ChelaConfig(num_heads=heads)

    def block(asked: Asked) -> tuple[Block, Callable[..., Tensor]]:
        torch.manual_seed(0)
        mixer = ChelaMixer(shape.channels, shape.length, config=config)
        ffn = MLP(shape.channels, 2 * shape.channels, dropout=0.0)
        made = Block(mixer, ffn, shape.channels, backbone.norm, prenorm=True, dropout=0.0)
        use_kernels(made.to(device), asked, device)
        names = [name for name, _ in made.named_parameters()]

        def call(x: Tensor, *parameters: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=x.dtype == torch.bfloat16):
                weights = dict(zip(names, parameters, strict=True))
                y: Tensor = torch.func.functional_call(made, weights, (x,))
                return y

        return made, call

    plain, eager = block("torch")

    def inputs(shape: Shape) -> list[Tensor]:
        parameters = [p.detach().clone().requires_grad_() for p in plain.parameters()]
        return [activation(shape, device), *parameters]

    forms = {"torch": eager}
    if device.type == "cuda":
        forms["torch.compile"] = torch.compile(eager, dynamic=False)
    if choose("auto", device) == "triton":
        forms["triton"] = torch.compile(block("auto")[1], dynamic=False)
    return [
        Case(
            "CHELA block",
            name,
            shape,
            inputs=inputs,
            call=form,
            reference=eager,
            floor_bytes=lambda shape: BLOCK_PASSES * shape.pass_bytes,
            max_error=BLOCK_ERROR,
        )
        for name, form in forms.items()
    ]


# A well fused block reads and writes its activations 16 times forward, 2.25 times that backward.
BLOCK_PASSES = 52
BLOCK_ERROR = 8e-2  # what rounding each operation to bfloat16 costs plain PyTorch: 2e-2 to 6e-2


@dataclass(frozen=True)
class Operation:
    """What is measured, and where."""

    make_cases: Callable[[Shape, torch.device], list[Case]]
    heads: tuple[int, ...] = (0,)  # channels per head; 0: it has none
    sizes: tuple[str, ...] = TASKS  # unless the command line names others


REGISTRY = [
    Operation(causal_attention, heads=(32, 64)),
    Operation(bidirectional_attention, heads=(32, 64)),
    Operation(short_convolution),
    Operation(long_convolution),
    Operation(chela_block, heads=(64, 128, 256), sizes=("64x2048x128",)),
]


def all_cases(sizes: Sequence[str], device: torch.device) -> Iterator[Case]:
    """Every implementation of every operation, the implementations of a shape side by side."""
    for operation in REGISTRY:
        for size in sizes or operation.sizes:
            batch, length, channels = (int(number) for number in size.split("x"))
            for head in operation.heads:
                yield from operation.make_cases(Shape(batch, length, channels, head), device)


def main() -> None:
    """Measure what the command line asks for and print a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operation", default="", help="part of an operation's name")
    parser.add_argument("--implementation", default="", help="part of an implementation's name")
    parser.add_argument("--shape", action="append", help="BxLxD; may be given several times")
    parser.add_argument("--plot", type=Path, help="draw time against length into this file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    bandwidth = copy_bandwidth(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, copies at {bandwidth / 1e12:.2f} TB/s\n{HEADER}")
    results: list[Result] = []
    for case in all_cases(arguments.shape or (LENGTHS if arguments.plot else ()), device):
        if arguments.operation not in case.operation:
            continue
        if arguments.implementation not in case.implementation:
            continue
        try:
            results.append(measure(case, bandwidth))
        except torch.OutOfMemoryError:
            print(f"{case.label}  does not fit into memory")
        else:
            print(results[-1].row(), flush=True)
    if arguments.plot:
        draw(results, arguments.plot)
        print(f"drawn: {arguments.plot}")


if __name__ == "__main__":
    main()
