"""Error and speed of every implementation of every operation, beside the floor and the peers.

    chela bench-kernels                              the shapes of four LRA tasks, and longer ones
    chela bench-kernels --operation causal           those whose name contains it
    chela bench-kernels --shape 8x2048x512           one shape: batch, length, channels
    chela bench-kernels --plot lengths.png           time against length, 1K to 1M
    chela bench-kernels --check                      the errors alone

A further operation is a further line in ``REGISTRY``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from chela.bench import kernel_cases
from chela.bench.measure import HEADER, Case, Result, Shape, copy_bandwidth, draw, measure
from chela.bench.words import device_of, parser_of, shape
from chela.kernels import choose
from chela.kernels.choice import Asked, use_kernels
from chela.mixers import ChelaConfig, ChelaMixer
from chela.model.backbone import BackboneConfig
from chela.model.block import Block
from chela.model.ffn import MLP
from chela.training.build import inductor_options

BLOCKS = ("64x2048x128", "50x1024x160")  # the residual streams of ListOps at D 128, of Image
TASKS = ("64x1024x512", "64x2048x256", "64x4096x256", "16x16384x256")  # Image to Path-X
LANGUAGE = ("16x4096x384",)  # of the values of a byte model
LONGEST = ("1x65536x128", "1x1048576x128")  # where a convolution has three factors
TAPS = ("1x1024x384", "1x4096x384", "1x16384x384", "1x131072x128", "1x1048576x128")
VALUES = ("50x1024x320", "64x1024x192", "32x4096x768")  # of one wide head
LENGTHS = [f"1x{2**power}x128" for power in range(10, 21, 2)]  # 1K to 1M


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
        return [kernel_cases.activation(shape, device), *parameters]

    forms, options = {"torch": eager}, inductor_options()
    if device.type == "cuda":
        forms["torch.compile"] = torch.compile(eager, dynamic=False, options=options)
    if choose("auto", device) == "triton":
        forms["triton"] = torch.compile(block("auto")[1], dynamic=False, options=options)
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
    plotted: bool = True  # against length; not where tokens know nothing of each other


REGISTRY = [
    Operation(kernel_cases.causal_attention, heads=(32, 64)),
    Operation(kernel_cases.decayed_attention, heads=(64,), sizes=LANGUAGE),
    Operation(kernel_cases.bidirectional_attention, heads=(32, 64)),
    Operation(kernel_cases.short_convolution),
    Operation(kernel_cases.long_convolution, sizes=TASKS + LONGEST),
    Operation(kernel_cases.exponentials, sizes=TAPS),
    Operation(kernel_cases.wavelets, sizes=TAPS[:4]),  # plain PyTorch needs much memory
    Operation(kernel_cases.feed_forward, sizes=BLOCKS, plotted=False),
    Operation(kernel_cases.output_gate, sizes=BLOCKS, plotted=False),
    Operation(kernel_cases.norm_and_value, sizes=BLOCKS, plotted=False),
    Operation(kernel_cases.queries_and_keys, sizes=BLOCKS, plotted=False),
    Operation(kernel_cases.head_norm_and_gate, sizes=VALUES, plotted=False),
    Operation(chela_block, heads=(64, 128, 256), sizes=BLOCKS[:1], plotted=False),
]


def all_cases(
    sizes: Sequence[tuple[int, int, int]], plot: bool, device: torch.device
) -> Iterator[Case]:
    """Every implementation of every operation, the implementations of a shape side by side."""
    for operation in REGISTRY:
        if plot and not operation.plotted:
            continue
        usual = map(shape, LENGTHS if plot else operation.sizes)
        for size in sizes or usual:
            for head in operation.heads:
                yield from operation.make_cases(Shape(*size, head), device)


def main(words: Sequence[str]) -> None:
    """Measure what the command line asks for and print a line each."""
    parser = parser_of("bench-kernels", __doc__)
    parser.add_argument(
        "--operation",
        action="append",
        help="part of an operation's name; may be given several times",
    )
    parser.add_argument("--implementation", default="", help="part of an implementation's name")
    parser.add_argument(
        "--shape", action="append", type=shape, help="BxLxD; may be given several times"
    )
    parser.add_argument("--plot", type=Path, help="draw time against length into this file")
    parser.add_argument("--check", action="store_true", help="errors alone, no times")
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cuda", "cpu"], default=usual)
    arguments = parser.parse_args(words)
    if arguments.check and arguments.plot:
        parser.error("--plot draws times; leave out --check")
    torch._dynamo.config.recompile_limit = 64  # of the blocks, one program per shape and head
    device = device_of(arguments.device)
    bandwidth = copy_bandwidth(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, copies at {bandwidth / 1e12:.2f} TB/s\n{HEADER}")
    results: list[Result] = []
    for case in all_cases(arguments.shape or (), bool(arguments.plot), device):
        if not any(part in case.operation for part in arguments.operation or [""]):
            continue
        if arguments.implementation not in case.implementation:
            continue
        try:
            results.append(measure(case, bandwidth, timed=not arguments.check))
        except torch.OutOfMemoryError:
            print(f"{case.label}  does not fit into memory")
        else:
            print(results[-1].row(), flush=True)
    if arguments.plot:
        draw(results, arguments.plot)
        print(f"drawn: {arguments.plot}")
